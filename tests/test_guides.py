"""Every block of code in the guides runs, and prints what the guide shows."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = [DOCS / "install.md", *sorted((DOCS / "guide").glob("*.md"))]
WITHOUT_CODE = {"index", "limits", "mathematics", "promises"}
EXTRAS = {
    "h5py",
    "matplotlib",
    "pandas",
    "polars",
    "pynapple",
    "pynwb",
    "safetensors",
    "skops",
    "xarray",
}
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Lines to copy, at the top of a page: they read files that later blocks write.
LAST = re.compile(r"^<!-- runs last -->\n```python\n(.*?)^```$\n", re.MULTILINE | re.DOTALL)
KINDS = {
    "python",
    "text",
    "console",
    "{code-block} python",  # needs hours, or other machines
    "{toctree}",
}


def test_every_block_of_a_guide_has_a_language():
    assert len(GUIDES) >= 5
    for guide in GUIDES:
        kinds = [kind for kind, _ in FENCE.findall(guide.read_text())]
        assert ("python" in kinds) == (guide.stem not in WITHOUT_CODE), guide.name
        assert set(kinds) <= KINDS, guide.name


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_code_of_the_guide_prints_what_it_shows(guide, capsys, monkeypatch, tmp_path):
    for package in EXTRAS & set(re.findall(r"\w+", guide.read_text())):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall(LAST.sub("", guide.read_text()))
    namespace = {}
    for number, (kind, content) in enumerate(blocks):
        if kind != "python":
            continue
        exec(compile(content, f"{guide.name}, block {number}", "exec"), namespace)
        printed = capsys.readouterr().out
        following = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
        expected = following[1] if following[0] == "text" else ""
        assert printed.strip() == expected.strip()
    for code in LAST.findall(guide.read_text()):
        assert len(code.splitlines()) <= 20, "more than fits on a screen"
        # one epoch is enough to see that it runs
        quick = code.replace("STNDTEstimator(random", "STNDTEstimator(max_epochs=1, random")
        assert quick != code
        exec(compile(quick, f"{guide.name}, lines to copy", "exec"), {})
        scores = capsys.readouterr().out.strip().splitlines()[-1]
        assert len(re.findall(r"-?\d+\.\d+", scores)) == 3, "of three folds"


@pytest.mark.parametrize("guide", GUIDES[1:], ids=lambda path: path.stem)
def test_a_guide_begins_with_the_question_that_it_answers(guide):
    if guide.stem != "index":
        _, first, *_ = guide.read_text().split("\n\n")
        assert "?" in first


def test_pages_by_format_begin_with_lines_to_copy():
    pages = {guide.stem for guide in GUIDES if LAST.search(guide.read_text())}
    assert pages == {
        f"from_{name}" for name in ("counts", "matlab", "nwb", "pynapple", "spike_times")
    }


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_links_between_guides_exist(guide):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", guide.read_text()):
        assert (guide.parent / target).exists(), target

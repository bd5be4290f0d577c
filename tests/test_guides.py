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
    blocks = FENCE.findall(guide.read_text())
    namespace = {}
    for number, (kind, content) in enumerate(blocks):
        if kind != "python":
            continue
        exec(compile(content, f"{guide.name}, block {number}", "exec"), namespace)
        printed = capsys.readouterr().out
        following = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
        expected = following[1] if following[0] == "text" else ""
        assert printed.strip() == expected.strip()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_links_between_guides_exist(guide):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", guide.read_text()):
        assert (guide.parent / target).exists(), target

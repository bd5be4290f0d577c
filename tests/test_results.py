"""README's table of results is that of docs/results.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results: written by make results -->\n", "<!-- end of results -->\n"
ROW = re.compile(r"\| \[.*\]\(docs/results\.md#([a-z0-9-]+)\) \| (.*) \((.*)\) \| (.*) \| (.*) \| ")

if not (ROOT / "docs" / "results.md").is_file():
    pytest.skip("the documentation is not part of an installed package", allow_module_level=True)


def readme_rows():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return [ROW.match(line) for line in table.splitlines()[2:]]


def page_tables():
    """Values of docs/results.md: {problem: {model: cells}}."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    tables = {}
    for part in re.split(r"\n\(([a-z0-9-]+)\)=\n", text)[1:][::1]:
        if "\n" not in part:
            name = part
            continue
        lines = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")]
        tables[name] = {line[0].strip("| "): [c.strip(" |") for c in line[1:]] for line in lines}
    return tables


def test_readme_has_at_most_eight_rows_and_120_lines():
    rows = readme_rows()
    assert 1 <= len(rows) <= 8
    assert all(rows)
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_number_of_readme_is_on_the_page_of_results():
    tables = page_tables()
    for problem, value, baseline, single, ensemble in (row.groups() for row in readme_rows()):
        table = tables[problem]
        assert value in table[baseline]
        assert single in table["STNDT"]
        assert not ensemble or ensemble in table["ensemble of 5"]

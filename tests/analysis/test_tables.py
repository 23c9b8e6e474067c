"""Tables for people: what a run says is text, whatever it looks like."""

import json

import pandas as pd

from loadtests.analysis.tables import table
from loadtests.data import NOTEBOOKS

SCRIPT = "<script>alert(1)</script>"


def test_labels_and_columns_are_text() -> None:
    label = pd.Categorical([SCRIPT, "lan"], categories=[SCRIPT, "lan"], ordered=True)
    shown = table(pd.DataFrame({"variant": label, SCRIPT: [1.25, None], "name": [SCRIPT, "<b>x"]})).to_html()
    assert "<script" not in shown
    assert "<b>" not in shown
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
    assert "1.2" in shown
    assert ">–<" in shown, "where there is no number"


def test_notebooks_make_html_in_no_other_way() -> None:
    for file in NOTEBOOKS.glob("*.ipynb"):
        code = [cell["source"] for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
        for way in (".style", "HTML(", "Markdown(", "to_html"):
            assert not any(way in line for cell in code for line in cell), f"{file.name}: {way}"

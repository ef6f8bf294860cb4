"""The notebook example runs, cell by cell, and shows what it says."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[3] / "examples" / "select_subset.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    shown = capsys.readouterr().out
    assert shown.startswith("60 of 600 rows from")
    assert "Map of the selection" in shown
    assert names["redundant"]["chosen"] < 0.5 < names["redundant"]["random"]
    assert len(names["selected"]) == 60
    assert json.loads(names["selected"][0])["id"].startswith("row-")
    assert tmp_path in names["folder"].parents

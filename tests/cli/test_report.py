from __future__ import annotations

import json

from sartor.cli import main


def test_the_page_is_rebuilt_and_the_table_shown(finished, capsys):
    (finished.folder / "report.html").unlink()
    assert main(["report", str(finished.folder)]) == 0
    assert (finished.folder / "report.html").stat().st_size > 1e6
    assert "winner" in capsys.readouterr().out
    assert main(["report", str(finished.folder), "--json"]) == 0
    assert [p["verdict"] for p in json.loads(capsys.readouterr().out)["points"]] == [finished.verdict]

from __future__ import annotations

import json

from sartor.cli import main


def test_exit_status_follows_the_checks(finished, capsys):
    code = main(["verify", str(finished.folder), "--json", "--quiet"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["checks"]) == 12
    assert code == (0 if found["holds"] else 1)
    assert found["sentences"][0].split(":")[0] in ("PASS", "UNSURE", "FAIL")

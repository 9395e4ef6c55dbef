from __future__ import annotations

import json
import shutil

from sartor.cli import main


def test_exit_status_follows_the_checks(finished, capsys):
    code = main(["verify", str(finished.folder), "--json", "--quiet"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["checks"]) == 12
    assert code == (0 if found["holds"] else 1)
    assert found["sentences"][0].split(":")[0] in ("PASS", "UNSURE", "FAIL")


def test_a_changed_file_is_one_line_that_names_it(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    (folder / "model.onnx").write_bytes(b"another network")
    for command in (["verify"], ["report"]):
        code = main([*command, str(folder)])
        out, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert f"{folder / 'model.onnx'} has SHA-256" in err
        assert (code, bool(out)) == ((2, False) if command == ["verify"] else (0, True))
    assert "not as delivered" in (folder / "report.html").read_text()

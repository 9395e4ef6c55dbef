from __future__ import annotations

import json

from sartor.jobs.fit.api import fit_config
from sartor.jobs.search import search
from small import settings


def test_the_search_alone_names_archs_and_a_fit_goes_on_from_there(tmp_path):
    config = settings(budget={"macs": ["60%", 5000]})
    result = search(config, tmp_path / "run", command="sartor search")
    assert [f.budget["macs"] for f in result.found][1] == 5000
    for found in result.found:
        assert found.modelled["macs"] <= found.budget["macs"]
        assert found.options.keys() == {"conv0", "separable1", "separable2"}
    assert not (tmp_path / "run/artifacts/reference.safetensors").exists()
    assert search(config, tmp_path / "run", command="again") == result
    before = (tmp_path / "run/search/journal.jsonl").read_bytes()
    fit = fit_config(config, tmp_path / "run")
    assert (tmp_path / "run/search/journal.jsonl").read_bytes() == before, "the search was run again"
    assert [p.searched.arch for p in fit.result.points] == [f.arch for f in result.found]
    assert json.loads((tmp_path / "run/search.json").read_text())["search"]["strategy"] == "ows"

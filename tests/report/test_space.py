from __future__ import annotations

import io

from rich.console import Console

from sartor.report.space import SHOWN, searchability


def text(found) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(searchability("mine:net", found))
    return out.getvalue()


def found(groups: int = 2, *, timed: bool = False):
    ends = {
        "full": {"macs": 4_000_000, "params": 200_000, "memory_bytes": 3_000_000},
        "floor": {"macs": 1_000_000, "params": 20_000, "memory_bytes": 1_500_000},
    }
    if timed:
        ends["full"]["latency_ms"] = {"value": 2.0, "low": 1.9, "high": 2.1}
        ends["floor"]["latency_ms"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    layers = [f"layer{i}" for i in range(6)]
    return {
        "groups": [
            {"name": f"group{i}", "layers": layers, "options": [8, 16, 64], "macs_share": 0.125} for i in range(groups)
        ],
        "fixed": [{"layer": "head", "reason": "it is an output of the network"}],
        **ends,
    }


def test_groups_reasons_and_ends_are_shown():
    lines = text(found()).splitlines()
    assert lines[0].startswith("mine:net: 2 groups of channels")
    (row,) = [line for line in lines if line.startswith(" group1") or line.startswith("group1")]
    for word in ("8-64", "12.5%", "layer1, layer2, layer3 and 2 more"):
        assert word in row
    assert any("head" in line and "it is an output of the network" in line for line in lines)
    rows = {line.strip().split("  ")[0]: line.split() for line in lines if line.strip()}
    assert rows["MMACs"][-3:] == ["4.00", "1.00", "25.0%"]
    assert rows["M parameters"][-3:] == ["0.20", "0.02", "10.0%"]
    assert rows["MB of activations"][-1] == "50.0%"


def test_times_are_shown_if_there_are_any():
    assert "2 (1.9-2.1)" not in text(found())
    shown = text(found(timed=True))
    assert "2 (1.9-2.1)" in shown
    assert "0.5 (0.4-0.6)" in shown


def test_long_lists_are_cut():
    shown = text(found(SHOWN + 5))
    assert f"group{SHOWN - 1} " in shown
    assert f"group{SHOWN} " not in shown
    assert "and 5 more groups (--json lists all)" in shown


def test_where_nothing_is_fixed_there_is_no_table_of_it():
    assert "Layers whose outputs stay" not in text({**found(), "fixed": []})


def test_what_the_macs_leave_out_is_a_line_each():
    left = [{"layer": "attention", "operator": "matmul", "why": "activations", "macs": 4096, "params": 0}]
    assert "Not in the MACs: 4,096 multiply-adds of two activations (attention)" in text({**found(), "uncounted": left})
    assert "Not in the MACs" not in text(found())


def test_notes_are_shown():
    assert "Note: part is left as it is: mul at net.py:3." in text(
        {**found(), "notes": ["part is left as it is: mul at net.py:3"]}
    )
    assert "Note" not in text(found())

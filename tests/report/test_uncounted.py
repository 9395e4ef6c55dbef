from __future__ import annotations

from sartor.report.uncounted import lines


def entry(layer: str, operator: str, why: str, macs: int = 0, params: int = 0) -> dict[str, object]:
    return {"layer": layer, "operator": operator, "why": why, "macs": macs, "params": params}


def test_one_line_per_kind_with_sums_and_the_first_layers():
    found = [entry(f"blocks.{i}", "scaled_dot_product_attention", "activations", 1000) for i in range(5)]
    found += [entry("words", "embedding", "lookup", params=4000), entry("", "fft_fft2", "work")]
    found += [entry("odd", "mystery", "unknown", params=32)]
    assert lines(found) == [
        "5,000 multiply-adds of two activations (blocks.0, blocks.1, blocks.2 and 2 more)",
        "4,000 parameters that are looked up (words)",
        "the work of fft_fft2 (the network itself)",
        "32 parameters of mystery, which sartor does not know (odd)",
    ]


def test_where_everything_is_counted_there_is_nothing_to_say():
    assert lines([]) == []

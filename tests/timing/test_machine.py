import json

from sartor.timing.machine import machine, usable_cores


def test_the_machine_is_described_in_plain_data() -> None:
    facts = machine()
    assert {
        "processor",
        "cores",
        "load_average",
        "governor",
        "system",
        "python",
        "torch",
        "onnxruntime",
    } <= facts.keys()
    assert json.loads(json.dumps(facts)) == facts


def test_there_is_a_core_to_run_on() -> None:
    assert 1 <= usable_cores() <= machine()["cores"]

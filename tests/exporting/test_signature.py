import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import TargetError
from sartor.core.trees import Inputs, Tree
from sartor.exporting.signature import Port, Signature

IMAGE, LABEL = torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, dtype=torch.int64)


class Net(nn.Module):
    def __init__(self, output: Any = "two") -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1))
        self.output = output

    def forward(self, image: Tensor, label: Tensor, *more: Tensor) -> Tree:
        return {"image": image, "nested": (label,)} if self.output == "two" else self.output


class Picture(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.mean()


def both() -> Signature:
    return Signature.of(Net(), (IMAGE, LABEL))


def test_names_come_from_parameters_keys_and_outputs_and_are_free_in_a_file() -> None:
    found = both()
    assert [(p.name, p.place) for p in found.inputs] == [("image", "image_"), ("label", "label")]
    assert found.outputs == ("image__", "nested.0")
    assert [p.name for p in Signature.of(Net(), {"label": LABEL, "image": IMAGE}).inputs] == ["label", "image"]
    assert [p.name for p in Signature.of(Net(), (IMAGE, LABEL, LABEL, LABEL)).inputs][2:] == ["input_2", "input_3"]
    alone = Signature.of(Picture(), IMAGE)
    assert ([p.name for p in alone.inputs], alone.outputs) == (["input"], ("output",))


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(TargetError, match=r"Net cannot run inputs of shapes \(1, 3, 8, 8\): .*'label'"):
        Signature.of(Net(), IMAGE)
    with pytest.raises(TargetError, match="Net returns a NoneType without tensors"):
        Signature.of(Net(None), (IMAGE, LABEL))
    with pytest.raises(TargetError, match="there is a set among its outputs"):
        Signature.of(Net((IMAGE, {1})), (IMAGE, LABEL))


@pytest.mark.parametrize(
    "inputs",
    [(IMAGE, LABEL), [IMAGE, LABEL], {"label": LABEL, "image": IMAGE}],
    ids=["tuple", "list", "dict"],
)
def test_inputs_are_taken_by_name_or_in_order(inputs: Inputs) -> None:
    assert [v is w for v, w in zip(both().ordered(inputs), (IMAGE, LABEL), strict=True)] == [True, True]


WRONG: dict[str, Any] = {
    r"input 'image', float32 of shape (batch, 3, 8, 8); got float32 of shape (1, 4, 8, 8)": (IMAGE[:, [0] * 4], LABEL),
    r"input 'image', float32 of shape (batch, 3, 8, 8); got float32 of shape (3, 8, 8)": (IMAGE[0], LABEL),
    r"input 'label', int64 of shape (batch, 2) (where batch is 1); got float32 of shape (1, 2)": (IMAGE, LABEL.float()),
    r"input 'label', int64 of shape (batch, 2) (where batch is 1); got int64 of shape (2, 2)": (
        IMAGE,
        LABEL.expand(2, 2),
    ),
    r"input 'label', int64 of shape (batch, 2) (where batch is 1); got a list": (IMAGE, [1, 2]),
    r"inputs 'image', float32 of shape (batch, 3, 8, 8); 'label', int64 of shape (batch, 2); got 1 of 2": IMAGE,
    r"got no 'label', 'lable'": {"image": IMAGE, "lable": LABEL},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_inputs_are_named_with_what_was_expected(message: str) -> None:
    with pytest.raises(TargetError, match=re.escape(message)):
        both().ordered(WRONG[message])


def test_sizes_that_are_not_known_fit_anything() -> None:
    free = replace(both(), inputs=(Port("image", "image"), Port("label", "label", (None, 2))))
    assert len(free.ordered((LABEL, LABEL.float()))) == 2


def test_a_text_brings_kind_names_and_structure_back() -> None:
    found = both()
    ports = [replace(port, name=port.place) for port in found.inputs]
    back = Signature.read(found.text(), ports, found.outputs)
    assert (back.kind, back.inputs, back.outputs) == (found.kind, found.inputs, found.outputs)
    output = back.rebuilt([IMAGE, LABEL])
    assert output["image"] is IMAGE
    assert output["nested"] == (LABEL,)
    assert back.packed([IMAGE, LABEL]) == (IMAGE, LABEL)
    assert replace(back, kind="dict").packed([IMAGE, LABEL]) == {"image": IMAGE, "label": LABEL}


def test_without_a_text_several_outputs_are_a_dict_and_one_is_a_tensor() -> None:
    assert Signature.read(None, [Port("x", "x")], ["y"]).rebuilt([IMAGE]) is IMAGE
    assert Signature.read(None, [Port("x", "x")], ["y", "z"]).rebuilt([IMAGE, LABEL]) == {"y": IMAGE, "z": LABEL}


@pytest.mark.parametrize("spoil", [{"version": 2}, {"inputs": ["image"]}, {"output": ["tensor"]}, {"kind": "list"}])
def test_a_text_of_another_file_is_refused(spoil: dict[str, Any]) -> None:
    found = both()
    text = json.dumps({**json.loads(found.text()), **spoil})
    with pytest.raises(TargetError, match="metadata entry 'sartor' of the file does not describe it"):
        Signature.read(text, found.inputs, found.outputs)
    with pytest.raises(TargetError, match="does not describe it"):
        Signature.read("no JSON", found.inputs, found.outputs)

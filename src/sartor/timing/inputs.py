"""What enters a network, as a file that another process reads: a tensor, a tuple of tensors, or a dict of them."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sartor.core.errors import DataError
from sartor.core.trees import Inputs

FORM = "form"
"""The entry of the file's metadata that says which of the three it holds."""


def write(inputs: Inputs, path: Path) -> None:
    """Write inputs as safetensors: `x` of a tensor; `0`, `1`, ... of a tuple; the names of a dict.

    Raises:
        DataError: It is none of the three.
    """
    if isinstance(inputs, Tensor):
        form, named = "tensor", {"x": inputs}
    elif isinstance(inputs, dict):
        form, named = "dict", inputs
    elif isinstance(inputs, tuple):
        form, named = "tuple", {str(i): x for i, x in enumerate(inputs)}
    else:
        raise DataError(f"the input of a network must be a tensor, a tuple or a dict of tensors, got {type(inputs)}")
    # clones: safetensors refuses tensors that share memory, and a network may well be given the same one twice
    save_file({name: x.detach().cpu().clone().contiguous() for name, x in named.items()}, path, {FORM: form})


def read(path: Path) -> Inputs:
    """What `write` has written, on the CPU; the entries of a dict in alphabetical order.

    Raises:
        DataError: The file is not one of `write`'s.
    """
    try:
        with safe_open(path, "pt") as file:
            form = (file.metadata() or {}).get(FORM, "nothing")
            named: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read inputs from {path} ({error}); write it with sartor.timing.inputs") from error
    if form == "tensor":
        return named["x"]
    if form == "tuple":
        return tuple(named[str(i)] for i in range(len(named)))
    if form == "dict":
        return named
    raise DataError(f"{path} says that it holds {form}, not inputs of a network; write it with sartor.timing.inputs")

"""What a file takes beside its example, tried against PyTorch; and the narrower file where it takes less than asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from torch import nn

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.core.foreign import first_line
from sartor.core.records import ExportSettings
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.exporting.agreement import drawn, errors
from sartor.exporting.pt2_file import obstacle
from sartor.exporting.signature import input_names
from sartor.exporting.sizes import OTHERS, NarrowError, axes, close, others
from sartor.exporting.tracing import evaluating

Run = Callable[[Inputs], Tree]
R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Written(Generic[R]):
    """A file that does what PyTorch does.

    Attributes:
        run: What it does.
        note: In what it takes less than was wished, and why; "" if in nothing.
        error: Largest error against PyTorch with other batches and sizes than its example's, relative.
    """

    run: R
    note: str = ""
    error: float = 0.0


def check_export(module: nn.Module, example: Inputs, settings: ExportSettings) -> None:
    """Whether the network takes the sizes that its files are to take: run and traced, in seconds, before any training.

    Raises:
        ConfigError: Its inputs have no such size.
        NarrowError: It cannot take others, and a file of fixed ones is not wished for.
    """
    open_ = axes(example, input_names(module, example), settings.dynamic)
    if not settings.dynamic or settings.otherwise == "fixed":
        return
    own = [_output(module, inputs)[1] for inputs in others(example, open_, torch_rng(0, "reach"))]
    why = obstacle(module, example, open_) if "" in own else next(iter(own), "")
    if why:
        raise NarrowError(_refusal(type(module).__name__, settings, why))


def written(
    write: Callable[[ExportSettings], R],
    module: nn.Module,
    example: Inputs,
    settings: ExportSettings | None = None,
    *,
    tolerance: float = 1e-3,
    file: str = "the file",
) -> Written[R]:
    """The widest file that does what PyTorch does, for any batch and for the sizes that are to be open.

    Args:
        write: Writes the file by settings, and gives what it does.
        module: The network, on any device.
        example: What the file is made with.
        settings: What is wished for.
        tolerance: Largest relative error, see `parity`.
        file: Its name, for messages.

    Raises:
        NarrowError: It cannot take other sizes, and a file of fixed ones is not wished for.
        TargetError: It cannot be written at all.
    """
    notes: list[str] = []
    settings = settings or ExportSettings()
    for wish in _narrower(settings):
        try:
            run = write(wish)
            note, worst = _tried(run, module, example, wish, tolerance, file)
        except NarrowError as error:
            last = error
            notes.append(f"{file} {_lacks(wish, example)}: {error}")
        else:
            return Written(run, "; ".join([*notes[-1:], *filter(None, [note])]), worst)
    raise NarrowError(_refusal(type(module).__name__, settings, str(last))) from last


def _narrower(settings: ExportSettings) -> Iterator[ExportSettings]:
    """From the widest to the narrowest."""
    yield settings
    if settings.dynamic and settings.otherwise == "refuse":
        return
    if settings.dynamic:
        yield replace(settings, dynamic=())
    if settings.batch == "open":
        yield replace(settings, dynamic=(), batch="fixed")


def _lacks(settings: ExportSettings, example: Inputs) -> str:
    """What a file that is narrower than `settings` is like."""
    what = f"inputs of {trees.shapes(example)}" if settings.dynamic else f"batches of {trees.size(example)}"
    return f"takes {what} only"


def _refusal(who: str, settings: ExportSettings, why: str) -> str:
    return (
        f"export.dynamic asks for files of {who} with open {', '.join(settings.dynamic)}: {why.rstrip('.')}; leave "
        "them out, or set export.otherwise = 'fixed'"
    )


@dataclass(frozen=True)
class _Tried:
    """What came of trying a file.

    Attributes:
        own: The first inputs that the network itself cannot take, in words.
        refused: The first ones that it can take and the file cannot.
        error: Largest error on all others; None if there are none.
    """

    own: str = ""
    refused: str = ""
    error: float | None = None


def _tried(
    run: Run, module: nn.Module, example: Inputs, settings: ExportSettings, tolerance: float, file: str
) -> tuple[str, float]:
    """In what a file is narrower than its settings, and its largest error with another batch and other sizes."""
    rng, notes, worst = torch_rng(0, "reach"), [], 0.0
    if settings.batch == "open":
        found = _compared(run, module, [drawn(example, rng, OTHERS)], tolerance)
        if found.error is None:
            why = found.own or obstacle(module, example) or found.refused
            notes.append(f"{file} {_lacks(ExportSettings(), example)}: {why}")
        worst = found.error or 0.0
    if settings.dynamic:
        open_ = axes(example, input_names(module, example), settings.dynamic)
        found = _compared(run, module, others(example, open_, rng), tolerance)
        if found.error is None:
            raise NarrowError(found.refused or found.own)
        near = _compared(run, module, close(example, open_, rng), tolerance)
        if found.refused or near.refused:
            notes.append(f"{file} takes other sizes, but not all: {found.refused or near.refused}")
        worst = max(worst, found.error, near.error or 0.0)
    return "; ".join(notes), worst


def _compared(run: Run, module: nn.Module, several: Iterable[Inputs], tolerance: float) -> _Tried:
    """A file against PyTorch.

    Raises:
        NarrowError: An error is larger than the tolerance.
    """
    own, refused, found = "", "", list[float]()
    for inputs in several:
        expected, why = _output(module, inputs)
        if why:
            own = own or why
            continue
        try:
            given = run(inputs)
        except TargetError as error:
            refused = refused or str(error)
            continue
        found.append(max(errors(given, expected).values()))
        if not found[-1] <= tolerance:
            raise NarrowError(f"it is off by {found[-1]:.2g} of PyTorch's range for inputs of {trees.shapes(inputs)}")
    return _Tried(own, refused, max(found, default=None))


def _output(module: nn.Module, inputs: Inputs) -> tuple[Tree, str]:
    """What the network gives; or why it cannot take the inputs."""
    who = type(module).__name__
    try:
        with evaluating(module):
            output = trees.call(module, trees.to(inputs, trees.device_of(module, inputs)))
    except Exception as error:  # noqa: BLE001 - whatever its code raises
        return None, f"{who} itself cannot take {trees.shapes(inputs)} ({first_line(error, named=True)})"
    if any(bool(leaf.isnan().any()) for leaf in trees.leaves(output)):
        return (
            None,
            f"{who} itself gives NaN for random inputs of {trees.shapes(inputs)}, which nothing can be compared with",
        )
    return output, ""

"""Several sources per example, kept apart or stacked: rasters and vectors of a place, classified by patch or pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.metrics import Metric
from sartor.data.archives import categories
from sartor.data.batches import EVALUATED, Batches, Splits, check_batch, fingerprint
from sartor.data.losses import cross_entropy, imitation
from sartor.data.overlap import overlap
from sartor.data.pooled import balanced_accuracy, worst_overlap
from sartor.data.quality import accuracy
from sartor.data.scenes import apart_from, around, blocks, layer_of, tiles
from sartor.data.sources import NONE, Scaling, Sources, arranged, channels_first, check_form

__all__ = ["multisource"]

FLIPS = {"": (), "flip": (-1,), "flips": (-1, -2)}

BLOCK = 2
"""Side of the blocks of a scene that stay in one split, in squares."""


def multisource(
    *,
    data: str | Path = "",
    test: float | str | Path = 0.1,
    inputs: str | Sequence[str] | Mapping[str, Sequence[int]] = (),
    label: str = "label",
    form: str = "apart",
    patch: int = 0,
    dense: bool = False,
    ignore: int | str | None = None,
    split: str = "",
    scale: bool = True,
    augment: str = "flip",
    batch: int = 32,
    valid: float = 0.1,
    seed: int = 0,
) -> Task:
    """Classification from several arrays of a place or moment: bands and elevation, spectrum and LiDAR, RGB and depth.

    `data` holds named arrays (a `.npz` file, a folder of `.npy` files and one-layer rasters, a `.parquet` file with
    images). Three layouts, told by the labels:

    - `(n,)`: one class per example; inputs are `(n, features)`, `(n, H, W)` or `(n, C, H, W)`.
    - `(n, H, W)`: a class per pixel; the network gives `(batch, classes, H, W)`.
    - `(H, W)`: one scene; inputs are `(H, W)`, `(H, W, C)` or `(C, H, W)`, and squares of side `patch` are cut out:
      around every labelled pixel (its class is asked for), or, if `dense`, side by side (the class of every pixel is).

    The decision is by accuracy if there is one class per example, else by mIoU of the whole split.

    Args:
        data: The file or folder.
        test: A file of the same names with the test examples, or the share that is held out for the final report.
        inputs: Names of arrays, in the order of the network's arguments; or name -> the shape that an example of it is
            brought to, as in `{"hsi": [144], "lidar": [21, 7, 7]}`. By default all but the label, `test` and `group`.
        label: Array of the classes: whole numbers or strings, numbered in their order.
        form: `"apart"`: the network has one argument per array; `"named"`: arguments of the arrays' names; `"stacked"`:
            one tensor, joined along the channels.
        patch: Side of the squares that are cut from a scene; 0 for the other layouts.
        dense: Whether squares of a scene are classified pixel by pixel.
        ignore: A label that is no class.
        split: `"official"`: an array `test` is true for test examples (or pixels of a scene); `"group"`: examples with
            the same `group` stay in one split, and so do blocks of a scene; `"random"`: pixels of a scene, too, though
            a neighbour tells them; empty: official as far as that is known, and groups and blocks stay together.
        scale: Whether inputs get mean 0 and deviation 1 per channel over the training split.
        augment: Of training examples with a height and width: `"flip"` mirrors half of them left to right, `"flips"`
            also top to bottom (seen from above, there is no up); `""` leaves them alone.
        batch: Examples per training batch.
        valid: Share of the training examples held out for the search.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: An array is missing, does not fit the labels, or holds NaN or infinity; a class has no training
            example.
        ConfigError: A setting is out of range.
    """
    check_batch(batch)
    check_form(form)
    if augment not in FLIPS or patch < 0:
        raise ConfigError(f"needs augment one of {', '.join(map(repr, FLIPS))}, patch >= 0; got {augment!r}, {patch}")
    sources = Sources.open(data, test)
    names = sources.inputs(list(inputs) if isinstance(inputs, Mapping) else inputs, [label])
    found, classes = categories(sources.labels(label, "label"), sources.where(label), ignore)
    labels = torch.from_numpy(found)
    if found.ndim == 2:
        examples, splits = _scene(sources, names, labels, patch, dense, split, valid, seed)
    else:
        shapes = inputs if isinstance(inputs, Mapping) else {}
        kept = torch.arange(len(labels)) if labels.dim() > 1 else (labels >= 0).nonzero().flatten()
        examples = _examples(sources, names, shapes, labels, kept, patch, dense)
        splits = sources.splits(
            split,
            len(kept),
            valid=valid,
            seed=seed,
            labels=examples.labels if labels.dim() == 1 else None,
            of_example=lambda array: array[kept.numpy()],
            counted=label,
        )
    _check_classes(examples.labels[splits.train], classes)
    ready = replace(
        examples,
        form=form or "apart",
        axes=FLIPS[augment],
        scalings={name: Scaling.of(partial(examples.values, name), splits.train) if scale else NONE for name in names},
    )
    per_pixel = examples.labels.dim() > 1
    return Task(
        train=lambda generator: Batches(splits.train, ready, batch, generator),
        valid=lambda: Batches(splits.valid, ready, EVALUATED),
        test=lambda: Batches(splits.test, ready, EVALUATED),
        loss=cross_entropy,
        distance=imitation,
        metrics=_metrics(len(classes), per_pixel),
        example=ready(splits.valid[:1], None)[0],
        name="multisource",
        logits=True,
        classes=len(classes),
        fingerprint=fingerprint(splits, examples.stored, examples.labels),
        describe={"source": str(data), "inputs": names, "classes": classes, "per_pixel": per_pixel} | splits.sizes(),
    )


def _metrics(classes: int, per_pixel: bool) -> tuple[Metric, ...]:
    if per_pixel:
        return (*overlap(classes, -100), worst_overlap(classes))
    return (*accuracy(classes), balanced_accuracy(classes))


@dataclass(frozen=True)
class _Examples:
    """Inputs and labels by the index of the example.

    Attributes:
        stored: Name -> what was read.
        values: The examples of an array, `(m, channels, ...)`, by its name and their indices.
        labels: `(n,)` or `(n, H, W)`, int64; -100 where there is none.
        axes: Along which training examples are mirrored at random.
    """

    stored: Mapping[str, Tensor]
    values: Callable[[str, Tensor], Tensor]
    labels: Tensor
    scalings: Mapping[str, Scaling] = field(default_factory=dict)
    form: str = "apart"
    axes: tuple[int, ...] = ()

    def __call__(self, index: Tensor, generator: torch.Generator | None) -> Batch:
        parts = {name: self.scalings[name](self.values(name, index)) for name in self.stored}
        labels = self.labels[index]
        for axis in self.axes if generator is not None else ():
            turned = torch.rand(len(index), generator=generator) < 0.5
            parts = {name: _mirrored(part, turned, axis) for name, part in parts.items()}
            labels = _mirrored(labels[:, None], turned, axis)[:, 0] if labels.dim() > 1 else labels
        return arranged(parts, self.form), labels


def _mirrored(values: Tensor, turned: Tensor, axis: int) -> Tensor:
    """Those of `values`, `(m, channels, H, W)`, that are to be turned; vectors have no sides."""
    return torch.where(turned[:, None, None, None], values.flip(axis), values) if values.dim() == 4 else values


def _examples(
    sources: Sources,
    names: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    labels: Tensor,
    kept: Tensor,
    patch: int,
    dense: bool,
) -> _Examples:
    """One example per row of the arrays that is kept: those without a class are none."""
    if patch or dense or labels.dim() not in (1, 3):
        raise DataError(
            f"the labels have the shape {tuple(labels.shape)}: patch and dense are for a scene, whose labels are (H, W)"
            "; others are (n,) or (n, H, W)"
        )
    stored = {}
    for name in names:
        array = sources.array(name, "inputs")
        if len(array) != len(labels) or array.ndim < 1:
            raise DataError(
                f"{sources.where(name)} has the shape {array.shape}, there are {len(labels)} labels; give 'inputs' the "
                "names of arrays with one row per label"
            )
        shape = tuple(shapes.get(name, ()))
        if shape and prod(shape) != array[0].size:
            raise DataError(
                f"{sources.where(name)} has {array[0].size} values per example, which are not {shape}; correct it"
            )
        stored[name] = channels_first(array.reshape(len(array), *shape) if shape else array)[kept]
        if labels.dim() == 3 and stored[name].shape[2:] != labels.shape[1:]:
            raise DataError(
                f"{sources.where(name)} has the shape {array.shape}, the labels have {tuple(labels.shape)}; for a "
                "class per pixel, height and width must agree"
            )
    return _Examples(stored, lambda name, index: stored[name][index], labels[kept])


def _scene(
    sources: Sources,
    names: Sequence[str],
    labels: Tensor,
    patch: int,
    dense: bool,
    split: str,
    valid: float,
    seed: int,
) -> tuple[_Examples, Splits]:
    """Squares of one scene."""
    if not patch or len(sources.archives) > 1:
        raise DataError(
            f"labels of the shape {tuple(labels.shape)} are of one scene; set patch, the side of the squares that the "
            "network gets, and let test be a share"
        )
    size = (labels.shape[0], labels.shape[1])
    layers = {name: layer_of(sources.array(name, "inputs"), size, sources.where(name)) for name in names}
    scene, truth = (tiles if dense else around)(layers, labels, patch)
    # the first pixel of a square is that of the padded layers: the labelled one, where squares are cut around it
    place = scene.corners.numpy()
    splits = sources.splits(
        split,
        len(scene),
        valid=valid,
        seed=seed,
        groups=blocks(scene.corners, BLOCK * patch),
        of_example=lambda array: array[place[:, 0], place[:, 1]],
    )
    if split != "random":
        held = torch.cat([splits.valid, splits.test])
        splits = replace(splits, train=apart_from(scene.corners, splits.train, held, patch))
    return _Examples(layers, scene.cut, truth), splits


def _check_classes(trained: Tensor, classes: Sequence[str]) -> None:
    seen = torch.bincount(trained[trained >= 0], minlength=len(classes))
    missing = [name for name, count in zip(classes, seen.tolist(), strict=True) if not count]
    if missing:
        raise DataError(
            f"no training example has class {', '.join(missing)}; set another seed, hold out less, or add examples"
        )

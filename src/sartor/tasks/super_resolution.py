"""Pictures enlarged by 2, 3 or 4: super-resolution of what bicubic shrinking leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.data import fidelity, quality
from sartor.data.images import existing, normalise, per_channel
from sartor.data.losses import absolute
from sartor.data.pairs import Decoded, PairBatches, below, identity, rooms
from sartor.data.pictures import decoded, drawn, picture_files, say_turned
from sartor.data.resize import imresize
from sartor.data.survey import early, survey

__all__ = ["super_resolution"]


def super_resolution(
    *,
    train: str | Path = "",
    test: str | Path = "",
    scale: int = 2,
    channels: int = 3,
    patch: int = 32,
    patches: int = 8,
    batch: int = 16,
    augment: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    valid: float = 0.1,
    held: float = 0.1,
    most: int = 20,
    cache_gb: float = 2.0,
    upright: bool = False,
    seed: int = 0,
) -> Task:
    """Pictures in folders; the small ones are made from them, by bicubic shrinking to 8 bits (`data/resize.py`).

    `train` is a folder of pictures, or holds folders `train`, `val` (or `valid`) and `test`; splits that are missing
    are drawn from the training pictures, picture by picture. Pictures are cut to a multiple of `scale`. The network
    gets `(batch, channels, H, W)` and gives `(batch, channels, scale H, scale W)`, both normalised alike: in [0, 1]
    unless `mean` and `std` say otherwise. Training takes random patches of the small picture with what belongs to
    them, turned and mirrored (eight ways); held-out pictures come whole, one per batch, as they differ in size.

    Loss and distance are L1 (Lim et al. 2017, section 3). Quality is PSNR, which decides, and SSIM, each the mean over
    pictures, of the luminance of the output as a file would hold it (8 bits, clamped), without `scale` pixels at every
    border: the field's convention. For one channel the luminance is computed first, and a grey file is taken as it is,
    which gives the published figures of bicubic enlargement (33.66 dB on Set5 at scale 2).

    Args:
        train: Folder of the training pictures.
        test: Folder of the test pictures; empty takes `train`/test, or draws them.
        scale: How much larger the output is: 2, 3 or 4.
        channels: 3 for colour, 1 for the luminance alone.
        patch: Height and width of a small training patch, and of the example that latency is measured with.
        patches: Patches per picture and epoch.
        batch: Patches per training batch.
        augment: Whether patches are turned and mirrored.
        mean: Per channel, of pixels scaled to [0, 1], of inputs and outputs; 0 by default. A network that is trained
            already wants what it was trained with.
        std: Standard deviation, likewise; 1 by default.
        valid: Share of the training pictures held out for the search, unless there is a folder.
        held: Share of the training pictures held out as test pictures, unless there are some.
        most: At most so many pictures are held out for the search: a whole picture is as much work as many patches.
        cache_gb: Decoded pictures are kept in memory up to this size.
        upright: Whether pictures are turned as their EXIF data says; without, they are as they are stored, and the log
            says if some are turned.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: A folder is missing or empty, a picture is too small for a patch, or cannot be decoded; the message
            names all that are wrong.
        ConfigError: A setting is out of range.
    """
    if scale not in (2, 3, 4) or channels not in (1, 3):
        raise ConfigError(f"scale must be 2, 3 or 4 and channels 1 or 3, got scale = {scale}, channels = {channels}")
    if min(patch, patches, batch, most) < 1:
        raise ConfigError(f"patch, patches, batch and most must be at least 1, got {(patch, patches, batch, most)}")
    splits = _splits(existing(train, "train"), str(test), valid, held, most, seed)
    room = rooms(cache_gb, splits)
    load = {k: partial(_large, v, scale, channels, patch if k != "test" else 1, upright) for k, v in splits.items()}
    data = {k: Decoded(partial(_read, load[k], scale), len(v), room[k]) for k, v in splits.items()}
    _check_all(splits, load, data)
    if not upright:
        files = [path for part in splits.values() for path in part]
        say_turned(files, list(map(str, files)), "task.upright")
    low, high = per_channel(mean, (0.0,) * channels, "mean"), per_channel(std, (1.0,) * channels, "std")
    finish = partial(_normalised, low, high)
    shown = partial(_shown, low, high, scale)
    transform = partial(_patch, scale, patch, augment)
    first, _ = data["valid"][0]
    return Task(
        train=lambda generator: PairBatches(data["train"], batch, finish, generator, transform, patches),
        valid=lambda: PairBatches(data["valid"], 1, finish),
        test=lambda: PairBatches(data["test"], 1, finish),
        loss=absolute,
        distance=absolute,
        metrics=(
            quality.mean_of(partial(_judged, fidelity.psnr, shown), "psnr", "max", "dB"),
            quality.mean_of(partial(_judged, fidelity.ssim, shown), "ssim", "max"),
        ),
        example=normalise(first[None, :, :patch, :patch], low, high),
        name="super_resolution",
        fingerprint=_fingerprint(splits, scale, channels),
        describe={"source": f"{train}{f', {test}' if str(test) else ''}", "scale": scale, "channels": channels}
        | {k: len(v) for k, v in splits.items()},
    )


def _splits(root: Path, test: str, valid: float, held: float, most: int, seed: int) -> dict[str, list[Path]]:
    base = root / "train" if (root / "train").is_dir() else root
    rest = picture_files(base)
    found = {}
    own = {"test": [existing(test, "test")] if test else [], "valid": []}
    if base != root:
        own["test"] += [root / "test"]
        own["valid"] += [root / "val", root / "valid"]
    for split, share in (("test", held), ("valid", valid)):
        given = next((p for p in own[split] if p.is_dir()), None)
        if given is not None:
            found[split] = picture_files(given)
            continue
        setting = "held" if split == "test" else "valid"
        rest, found[split] = drawn(rest, share, seed, setting, str(base))
    return {"train": rest, "valid": found["valid"][:most], "test": found["test"]}


def _check_all(
    splits: Mapping[str, Sequence[Path]], load: Mapping[str, Callable[[int], Tensor]], data: Mapping[str, Decoded]
) -> None:
    """Decode the pictures of a small data set; of all, make one that is refused name the others, too."""
    files = [(path, load[split], i) for split, part in splits.items() for i, path in enumerate(part)]
    names = [str(path) for path, _, _ in files]

    def picture(index: int) -> Tensor:
        return files[index][1](files[index][2])

    def check_all() -> None:
        survey(names, picture, "pictures", picture)

    for part in data.values():
        part.check_all = check_all
    early([path for path, _, _ in files], check_all, names)


def _read(load: Callable[[int], Tensor], scale: int, index: int) -> tuple[Tensor, Tensor]:
    """The small picture, `(channels, h, w)`, and the large one, `(channels, scale h, scale w)`, uint8."""
    large = load(index)
    rows, cols = (side // scale for side in large.shape[-2:])
    small = fidelity.eight_bit(imresize(large.double(), 1 / scale)).to(torch.uint8)
    return small[:, :rows, :cols], large


def _large(files: Sequence[Path], scale: int, channels: int, patch: int, upright: bool, index: int) -> Tensor:
    """The large picture, `(channels, scale h, scale w)`, uint8."""
    path = files[index]
    large = decoded(path, str(path), None if channels == 1 else 3, upright=upright)
    if channels == 1 and len(large) == 3:
        large = fidelity.luminance(large[None].float())[0].round().to(torch.uint8)
    rows, cols = (side // scale for side in large.shape[-2:])
    if min(rows, cols) < patch:
        raise DataError(
            f"{path} has {tuple(large.shape[-2:])} pixels, at scale {scale} too few for a patch of {patch}; lower "
            "patch or remove it"
        )
    return large[:, : rows * scale, : cols * scale].contiguous()


def _patch(
    scale: int, patch: int, augment: bool, small: Tensor, large: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    top, left = (below(side - patch + 1, generator) for side in small.shape[-2:])
    small = small[:, top : top + patch, left : left + patch]
    end = scale * patch
    large = large[:, scale * top : scale * top + end, scale * left : scale * left + end]
    if not augment:
        return small, large
    turns, mirrored = below(4, generator), below(2, generator)
    return _turned(small, turns, mirrored), _turned(large, turns, mirrored)


def _turned(picture: Tensor, turns: int, mirrored: int) -> Tensor:
    turned = torch.rot90(picture, turns, (-2, -1))
    return turned.flip(-1) if mirrored else turned


def _normalised(mean: Sequence[float], std: Sequence[float], small: Tensor, large: Tensor) -> Batch:
    return normalise(small, mean, std), normalise(large, mean, std)


def _shown(mean: Sequence[float], std: Sequence[float], scale: int, pictures: Tensor) -> Tensor:
    """What is judged of an output or target, `(batch, channels, H, W)`: luminance in 0..255, `(batch, 1, H', W')`."""
    shape = (1, len(mean), 1, 1)
    offset, factor = (torch.tensor(v, device=pictures.device).reshape(shape) for v in (mean, std))
    values = fidelity.eight_bit(255 * (pictures.float() * factor + offset))
    return fidelity.without_border(fidelity.luminance(values) if len(mean) == 3 else values, scale)


def _judged(
    measure: Callable[[Tensor, Tensor], Tensor], shown: Callable[[Tensor], Tensor], output: Tensor, target: Tensor
) -> Tensor:
    return measure(shown(output), shown(target))


def _fingerprint(splits: dict[str, list[Path]], scale: int, channels: int) -> str:
    digest = hashlib.sha256(f"{scale}/{channels}".encode())
    for split, files in splits.items():
        for path in files:
            digest.update(split.encode() + identity(path))
    return digest.hexdigest()

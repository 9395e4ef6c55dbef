"""Image files for the tests of the tasks."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from cnn import bright_images


def arrays_of(count: int, seed: int = 0, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, 8, 8, channels)` and labels of two classes."""
    images = bright_images(count, seed)
    return images.pixels.repeat(1, channels, 1, 1).permute(0, 2, 3, 1).numpy(), images.labels.numpy()


def write_npz(path: Path, count: int, seed: int = 0) -> Path:
    pixels, labels = arrays_of(count, seed)
    np.savez(path, x=pixels, y=labels)
    return path


def png(pixels: np.ndarray) -> bytes:
    data = BytesIO()
    Image.fromarray(pixels.squeeze()).save(data, "PNG")
    return data.getvalue()


def write_parquet(path: Path, count: int, seed: int = 0, channels: int = 3) -> Path:
    """Sorted by class."""
    import pyarrow
    from pyarrow import parquet

    pixels, labels = arrays_of(count, seed, channels)
    order = np.argsort(labels, kind="stable")
    columns = {"png": [png(pixels[i]) for i in order], "label": labels[order].astype(np.uint8)}
    parquet.write_table(pyarrow.table(columns), path)
    return path


def write_folder(root: Path, count: int, classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> Path:
    """`count` images per class, of differing sizes."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            height, width = rng.integers(20, 40, 2)
            pixels = rng.integers(0, 100, (height, width, 3)) + 100 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def write_mnist(root: Path, train: int, test: int) -> Path:
    """MNIST's own format: big-endian header, then bytes."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count, seed in (("train", train, 0), ("t10k", test, 1)):
        pixels, labels = arrays_of(count, seed, 1)
        head = np.array([2051, count, 8, 8], ">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([2049, count], ">i4").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    return root

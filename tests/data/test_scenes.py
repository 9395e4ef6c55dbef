import numpy as np
import pytest
import torch

from sartor.core.errors import DataError
from sartor.data.scenes import apart_from, around, blocks, layer_of, tiles

HEIGHT, WIDTH = 9, 11
GRID = torch.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def labels():
    found = torch.full((HEIGHT, WIDTH), -100)
    found[0, 0], found[4, 5], found[8, 10] = 1, 0, 1
    return found


def test_layers_of_all_layouts():
    array = np.arange(HEIGHT * WIDTH * 2).reshape(HEIGHT, WIDTH, 2)
    last = layer_of(array, (HEIGHT, WIDTH), "x")
    first = layer_of(array.transpose(2, 0, 1), (HEIGHT, WIDTH), "x")
    assert torch.equal(last, first)
    assert layer_of(array[..., 0].astype(np.uint16), (HEIGHT, WIDTH), "x").shape == (1, HEIGHT, WIDTH)
    with pytest.raises(DataError, match=r"array 'x' has the shape \(5, 5\), the labels have \(9, 11\)"):
        layer_of(np.zeros((5, 5)), (HEIGHT, WIDTH), "array 'x'")


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 5])
def test_the_labelled_pixel_is_in_the_middle(patch):
    scene, truth = around({"x": GRID[None]}, labels(), patch)
    assert truth.tolist() == [1, 0, 1]
    found = scene.cut("x", torch.arange(3))
    assert found.shape == (3, 1, patch, patch)
    middle = found[:, 0, patch // 2, patch // 2]
    assert middle.tolist() == [0, 4 * WIDTH + 5, 8 * WIDTH + 10]
    inner = found[1, 0]
    rows, columns = (slice(c - patch // 2, c - patch // 2 + patch) for c in (4, 5))
    assert torch.equal(inner, GRID[rows, columns])


def test_the_border_is_mirrored():
    scene, _ = around({"x": GRID[None]}, labels(), 3)
    assert scene.cut("x", torch.tensor([0]))[0, 0, 0].tolist() == [WIDTH + 1, WIDTH, WIDTH + 1]


def test_tiles_cover_the_scene_and_leave_out_what_has_no_label():
    scene, truth = tiles({"x": GRID[None]}, torch.zeros(HEIGHT, WIDTH, dtype=torch.int64), 4)
    assert set(scene.cut("x", torch.arange(len(scene))).flatten().tolist()) == set(GRID.flatten().tolist())
    assert truth.shape == (9, 4, 4)
    scene, truth = tiles({"x": GRID[None]}, labels(), 4)
    assert len(scene) == 3
    assert (truth >= 0).sum() == 3
    with pytest.raises(DataError, match="larger than the scene"):
        tiles({"x": GRID[None]}, labels(), 10)
    with pytest.raises(DataError, match="larger than the scene"):
        around({"x": GRID[None]}, labels(), 10)


def test_training_squares_share_no_pixel_with_held_out_ones():
    whole = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    scene, _ = around(
        {"x": torch.arange((HEIGHT + 2) * (WIDTH + 2)).reshape(1, HEIGHT + 2, WIDTH + 2)[:, 1:-1, 1:-1]}, whole, 3
    )
    group = blocks(scene.corners, 4)
    assert len(set(group.tolist())) == 9
    held = torch.from_numpy(np.flatnonzero(group == group[0]))
    rest = torch.from_numpy(np.flatnonzero(group != group[0]))
    kept = apart_from(scene.corners, rest, held, 3)
    assert 0 < len(kept) < len(rest)
    places = {tuple(c) for c in scene.corners[held].tolist()}
    for row, column in scene.corners[kept].tolist():
        assert all(max(abs(row - r), abs(column - c)) >= 3 for r, c in places)

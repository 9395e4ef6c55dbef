import pytest
import torch
from torch.nn import functional

from sartor.core.errors import DataError
from sartor.core.rng import torch_rng
from sartor.data import losses


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch_rng(seed))


def test_cross_entropy_of_classes_and_of_pixels():
    logits, labels = noise(4, 3), torch.tensor([0, 2, 1, 1])
    wanted = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(losses.cross_entropy(logits, labels), wanted)
    pixels, maps = noise(2, 3, 4, 5), torch.randint(3, (2, 4, 5), generator=torch_rng(1))
    found = losses.cross_entropy(pixels, maps)
    for i in range(2):
        torch.testing.assert_close(found[i], functional.cross_entropy(pixels[i : i + 1], maps[i : i + 1]))


def test_ignored_pixels_have_neither_loss_nor_gradient():
    pixels, maps = noise(2, 3, 2, 2).requires_grad_(), torch.tensor([[[0, 7], [1, 7]], [[7, 7], [7, 7]]])
    found = losses.cross_entropy(pixels, maps, ignore=7)
    kept = pixels[0].flatten(1)[:, [0, 2]].T
    torch.testing.assert_close(found[0], functional.cross_entropy(kept, torch.tensor([0, 1])))
    assert found[1].item() == 0
    found.sum().backward()
    gone = (maps == 7)[:, None].expand_as(pixels)
    assert (pixels.grad[gone] == 0).all()
    assert (pixels.grad[~gone] != 0).all()


def test_errors_are_means_over_an_example():
    a, b = noise(3, 2, 4), noise(3, 2, 4, seed=1)
    torch.testing.assert_close(losses.absolute(a, b), (a - b).abs().mean((1, 2)))
    torch.testing.assert_close(losses.squared(a, b), ((a - b) ** 2).mean((1, 2)))
    torch.testing.assert_close(losses.squared(a[:, 0, 0], b[:, 0, 0]), (a - b)[:, 0, 0] ** 2)


def test_imitation_has_the_gradient_of_the_kullback_leibler_divergence():
    ours, theirs = noise(3, 4).requires_grad_(), noise(3, 4, seed=1)
    (first,) = torch.autograd.grad(losses.imitation(ours, theirs).sum(), ours)
    divergence = functional.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="sum")
    (second,) = torch.autograd.grad(divergence, ours)
    torch.testing.assert_close(first, second)


def test_trees_are_compared_tensor_by_tensor():
    a = {"x": noise(3, 2), "y": (noise(3, 4), torch.arange(3))}
    b = {"x": noise(3, 2, seed=1), "y": (10 * noise(3, 4, seed=1), torch.zeros(3, dtype=torch.int64))}
    parts = [losses.squared(a["x"], b["x"]), losses.squared(a["y"][0], b["y"][0])]
    torch.testing.assert_close(losses.apart(a, b), (parts[0] + parts[1]) / 2)
    scaled = [p / t.var(correction=0) for p, t in zip(parts, (b["x"], b["y"][0]), strict=True)]
    torch.testing.assert_close(losses.relative(a, b), (scaled[0] + scaled[1]) / 2)
    with pytest.raises(DataError, match="must give the same tensors"):
        losses.apart(a, {"x": b["x"]})
    with pytest.raises(DataError, match="no floating-point tensor"):
        losses.apart(torch.arange(3), torch.arange(3))

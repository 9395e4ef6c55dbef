import pytest
import torch
from torch import nn

from sartor.core.errors import DataError
from sartor.core.rng import torch_rng
from sartor.data.teacher import Taught, Teacher, likeness, relative_error, scales_of, unknown

CPU = torch.device("cpu")


class Heads(nn.Module):
    """Several outputs of very different size, one constant, one of whole numbers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.drop(self.body(x))
        return {"large": 1000 * y, "small": [y[:, :1] / 1000, torch.ones_like(y)], "best": y.argmax(1)}


def batches(count=3, size=100):
    return [(torch.randn(size, 4, generator=torch_rng(i)), None) for i in range(count)]


def test_a_teacher_is_a_frozen_copy():
    network = Heads().train()
    teacher = Teacher(network, CPU)
    x = torch.randn(5, 4)
    before = teacher(x)["large"]
    with torch.no_grad():
        network.body.weight.add_(1)
    assert torch.equal(before, teacher(x)["large"])  # neither the change nor dropout is seen
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert not before.requires_grad
    assert teacher.fingerprint() != Teacher(network, CPU).fingerprint()
    assert teacher.fingerprint() == Teacher(teacher.network, CPU).fingerprint()


def test_scales_are_variances_of_the_first_examples():
    teacher = Teacher(Heads(), CPU)
    scales = scales_of(teacher, batches(10))
    assert list(scales) == ["large", "small.0", "small.1"]
    seen = torch.cat([teacher(x)["large"] for x, _ in batches(3)])  # 256 are reached within three batches
    assert scales["large"] == pytest.approx(float(seen.double().var(correction=0)), rel=1e-6)
    assert scales["small.1"] == 1  # constant: its mean square
    assert scales["small.0"] < 1e-4


def test_nothing_to_imitate_is_told():
    class Best(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    class Broken(nn.Module):
        def forward(self, x):
            return x / 0

    with pytest.raises(DataError, match="no output of floating-point numbers"):
        scales_of(Teacher(Best(), CPU), batches())
    with pytest.raises(DataError, match="'value' is NaN or infinite"):
        scales_of(Teacher(Broken(), CPU), batches())
    with pytest.raises(DataError, match="0 training examples"):
        scales_of(Teacher(Heads(), CPU), [])
    with pytest.raises(DataError, match=r"task\.informed\(network\)"):
        unknown(1, 2)


def test_a_relative_error_of_one_is_the_mean_output():
    teacher = Teacher(Heads(), CPU)
    scales = scales_of(teacher, batches())
    output = teacher(torch.cat([x for x, _ in batches()]))
    mean = {
        "large": output["large"].mean().expand_as(output["large"]),
        "small": [output["small"][0].mean().expand_as(output["small"][0]), output["small"][1] + 1],
        "best": output["best"],
    }
    found = relative_error(mean, output, scales)
    assert found.shape == (300,)
    assert float(found.square().mean()) == pytest.approx(1, rel=0.05)
    assert float(relative_error(output, output, scales).max()) == 0
    # no output drowns another: an error of one deviation in the small one counts as in the large one
    off = {**output, "small": [output["small"][0] + scales["small.0"] ** 0.5, output["small"][1]]}
    torch.testing.assert_close(
        relative_error(off, output, scales), torch.full((300,), 3**-0.5).double(), rtol=1e-3, atol=0
    )
    alone = relative_error(
        {k: v[:1] if k != "small" else [t[:1] for t in v] for k, v in mean.items()},
        {k: v[:1] if k != "small" else [t[:1] for t in v] for k, v in output.items()},
        scales,
    )
    torch.testing.assert_close(alone, found[:1])  # a batch of one gives the same


def test_outputs_of_fixed_batches_are_computed_once_if_small():
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return 2 * x

    teacher = Teacher(Counting(), CPU)
    size = 3 * 100 * 4 * 4
    for room, calls in ((size, 3), (size - 1, 6), (0, 6)):
        Counting.calls = 0
        taught = Taught(batches, teacher, room)
        unfinished = iter(taught)  # a pass that is not finished keeps nothing
        next(unfinished), next(unfinished)
        Counting.calls = 0
        passes = [list(taught), list(taught)]
        assert Counting.calls == calls
        for first, again in zip(*passes, strict=True):
            assert torch.equal(first[1], again[1])
            assert torch.equal(first[1], 2 * first[0])
        assert len(taught) == 3


def test_agreement_is_the_share_of_equal_answers():
    (error, share) = likeness({"value": 1.0}, agreement=True, positions=False)
    assert (error.name, error.goal, error.interval) == ("relative_error", "min", "per_example")
    assert (share.name, share.goal, share.interval) == ("agreement", "max", "proportion")
    made = share.make()
    a = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    made.update(a, a.flip(0))
    made.update(a[:1], a[:1])
    assert float(made.compute()) == pytest.approx(2 / 4)
    (_, dense) = likeness({"value": 1.0}, agreement=True, positions=True)
    maps = torch.stack([torch.zeros(2, 4), torch.tensor([[1.0, 1, -1, -1]] * 2)], 1)
    made = dense.make()
    made.update(maps, maps.flip(2))
    assert made.values.tolist() == [0, 0]
    assert len(likeness({"value": 1.0}, agreement=False, positions=False)) == 1

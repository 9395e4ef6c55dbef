from dataclasses import replace

import pytest
import torch
from torch import nn

from cnn import same_weights, small_cnn, small_task
from run.toys import largest_file
from sartor.core.errors import ConfigError, DataError, DivergedError, StateError
from sartor.core.state import load, save
from sartor.tasks.digits import digits
from sartor.training import Recipe, evaluate, fit

FULL = Recipe(epochs=4, lr=0.05, ema=0.9, label_smoothing=0.1, clip=1.0, validate=2, device="cpu")


class KilledError(Exception):
    pass


def killer(at):
    def on_epoch(done, total, metrics):
        if done == at:
            raise KilledError

    return on_epoch


@pytest.mark.parametrize("recipe", [FULL, replace(FULL, optimizer="adamw", ema=0.0, amp="bfloat16", nesterov=False)])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_killed_and_resumed_is_uninterrupted(tmp_path, recipe, at):
    task, teacher = small_task(), small_cnn()
    whole = small_cnn(dropout=0.3)
    expected = fit(whole, task, recipe, seed=1, teacher=teacher)
    killed = small_cnn(dropout=0.3)
    with pytest.raises(KilledError):
        fit(killed, task, recipe, seed=1, teacher=teacher, checkpoint=tmp_path / "c.pt", on_epoch=killer(at))
    resumed = small_cnn(dropout=0.3)
    with torch.no_grad():
        resumed[0].weight.zero_()  # any start will do
    assert fit(resumed, task, recipe, seed=1, teacher=teacher, checkpoint=tmp_path / "c.pt") == expected
    assert same_weights(resumed, whole)


def test_the_scale_of_the_gradients_is_resumed(tmp_path):
    """The loss overflows in the first epoch only, so the scale has come down when the training is killed."""
    task, recipe = small_task(), Recipe(epochs=3, amp="float16", device="cpu")
    calls = []

    def loss(logits, target):
        calls.append(1)
        return task.loss(logits, target).float() * (1e36 if len(calls) == 2 else 1.0)

    with pytest.raises(KilledError):
        fit(small_cnn(), replace(task, loss=loss), recipe, seed=1, checkpoint=tmp_path / "c.pt", on_epoch=killer(1))
    scale = load(tmp_path / "c.pt")["engine"]["scale"]
    fit(small_cnn(), task, recipe, seed=1, checkpoint=tmp_path / "c.pt")
    assert load(tmp_path / "c.pt")["engine"]["scale"] == scale < 65536


@pytest.mark.parametrize("part", ["module", "optimizer", "schedule", "generator", "average"])
def test_every_part_of_the_checkpoint_counts(tmp_path, part):
    """Drops one part's progress from the checkpoint: the resumed training must then differ."""
    task, whole = small_task(), small_cnn()
    fit(whole, task, FULL, seed=1)
    states = []
    for stop in (1, 2):
        with pytest.raises(KilledError):
            fit(small_cnn(), task, FULL, seed=1, checkpoint=tmp_path / f"{stop}.pt", on_epoch=killer(stop))
        states.append(load(tmp_path / f"{stop}.pt"))
    save(tmp_path / "mixed.pt", states[1] | {part: states[0][part]})
    resumed = small_cnn()
    fit(resumed, task, FULL, seed=1, checkpoint=tmp_path / "mixed.pt")
    assert not same_weights(resumed, whole)


def test_a_finished_checkpoint_only_loads(tmp_path):
    task, first, second = small_task(), small_cnn(), small_cnn()
    history = fit(first, task, FULL, seed=1, checkpoint=tmp_path / "c.pt")
    seen = []
    assert fit(second, task, FULL, seed=1, checkpoint=tmp_path / "c.pt", on_epoch=lambda *a: seen.append(a)) == history
    assert not seen
    assert same_weights(first, second)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    fit(small_cnn(), small_task(), Recipe(epochs=1, device="cpu"), seed=1, checkpoint=path)
    with pytest.raises(StateError, match=r"lr = 0\.1, now 0\.3"):
        fit(small_cnn(), small_task(), Recipe(epochs=1, lr=0.3, device="cpu"), seed=1, checkpoint=path)
    with pytest.raises(StateError, match="seed = 1, now 2"):
        fit(small_cnn(), small_task(), Recipe(epochs=1, device="cpu"), seed=2, checkpoint=path)
    with pytest.raises(StateError, match="another network"):
        fit(small_cnn(norm=False), small_task(), Recipe(epochs=1, device="cpu"), seed=1, checkpoint=path)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    path = tmp_path / "c.pt"
    task, recipe = small_task(), Recipe(epochs=2, device="cpu")
    with pytest.raises(KilledError):
        fit(small_cnn(), task, recipe, seed=1, checkpoint=path, on_epoch=killer(1))
    before = path.read_bytes()
    with largest_file(10), pytest.raises(StateError, match=r"c\.pt"):
        fit(small_cnn(), task, recipe, seed=1, checkpoint=path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_loss_that_is_not_finite_names_epoch_and_step():
    task = small_task()
    calls = []

    def loss(logits, target):
        calls.append(1)
        return task.loss(logits, target) * (float("nan") if len(calls) == 7 else 1.0)

    with pytest.raises(DivergedError, match="loss is nan at epoch 2, step 3"):
        fit(small_cnn(), replace(task, loss=loss), Recipe(epochs=3, device="cpu"), seed=0)


def test_no_batches_is_an_error():
    with pytest.raises(DataError, match="no batches"):
        fit(small_cnn(), replace(small_task(), train=lambda g: []), Recipe(epochs=1, device="cpu"), seed=0)


def test_fidelity_shortens_the_training_and_its_schedule():
    history = fit(small_cnn(), small_task(), Recipe(epochs=10, device="cpu"), seed=0, fidelity=0.3)
    assert len(history.epochs) == 3
    assert history.last["lr"] == pytest.approx(0)
    with pytest.raises(ConfigError, match="fidelity"):
        fit(small_cnn(), small_task(), Recipe(epochs=1), seed=0, fidelity=0.0)


def test_seed_decides_everything_and_global_generators_are_left_alone():
    def trained(seed):
        module = small_cnn(dropout=0.5)
        fit(module, small_task(), Recipe(epochs=1, device="cpu"), seed=seed)
        return module

    torch.rand(1)  # the global state must not matter
    before = torch.get_rng_state()
    first = trained(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert same_weights(first, trained(0))
    assert not same_weights(first, trained(1))


def test_modes_are_put_back():
    module = small_cnn().eval()
    module[1].train()
    before = [m.training for m in module.modules()]
    fit(module, small_task(), Recipe(epochs=1, device="cpu", validate=1), seed=0)
    assert [m.training for m in module.modules()] == before
    fresh = small_cnn().train()
    fit(fresh, small_task(), Recipe(epochs=1, device="cpu", validate=1), seed=0)
    assert same_weights(module, fresh)


def test_validation_sees_the_weights_that_are_returned():
    task, module = small_task(), small_cnn()
    history = fit(module, task, FULL, seed=1)
    assert history.last["valid_accuracy"] == evaluate(module, task.valid(), task)["accuracy"]
    assert ["valid_accuracy" in e for e in history.epochs] == [False, True, False, True]


def test_the_average_is_that_of_the_formula():
    """One epoch of four steps: decays 1/10, 2/11, 3/12, 4/13, all below the limit."""
    task, seen = small_task(), []
    start = small_cnn(norm=False)

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn(norm=False)

        def forward(self, x):
            seen.append([p.detach().clone() for p in self.net.parameters()])
            return self.net(x)

    last = small_cnn(norm=False)
    plain = Recipe(epochs=1, device="cpu")
    fit(last, task, plain, seed=0)
    module = Watched()
    fit(module, task, replace(plain, ema=0.99), seed=0)
    trail = [*seen[1:], [p.detach() for p in last.parameters()]]
    expected = [p.detach() for p in start.parameters()]
    for n, weights in enumerate(trail):
        decay = (1 + n) / (10 + n)
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
    for a, b in zip(module.net.parameters(), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_loaders_without_a_length_train_alike():
    task, a, b = small_task(), small_cnn(), small_cnn()
    fit(a, task, Recipe(epochs=2, device="cpu"), seed=0)
    fit(b, replace(task, train=lambda g: iter(task.train(g))), Recipe(epochs=2, device="cpu"), seed=0)
    assert same_weights(a, b)


def test_claim_a_small_network_reads_the_digits():
    task, module = digits(), small_cnn(1, 10)
    fit(module, task, Recipe(epochs=8, lr=0.2, device="cpu"), seed=0)
    assert evaluate(module, task.test(), task)["accuracy"] > 0.95

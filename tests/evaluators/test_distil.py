from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sartor.core.abilities import Heritable
from sartor.core.contracts import Problem, Task
from sartor.core.errors import CapabilityError, ConfigError, DataError, DivergedError
from sartor.core.records import Objective, Proposal
from sartor.core.rng import derive, global_seed
from sartor.data.losses import cross_entropy, imitation
from sartor.data.quality import accuracy
from sartor.evaluators.distil import Distil
from sartor.spaces.compression import Compression
from sartor.spaces.tiny import Tiny
from sartor.training import Recipe

CPU = {"device": "cpu"}


def batches(generator, count):
    for _ in range(count):
        x = torch.randn(16, 4, generator=generator)
        yield x, (x[:, 0] > 0).long()


def task(**changes) -> Task:
    made = Task(
        train=lambda generator: list(batches(generator, 4)),
        valid=lambda: batches(torch.Generator().manual_seed(1), 4),
        test=lambda: batches(torch.Generator().manual_seed(2), 2),
        loss=cross_entropy,
        distance=imitation,
        metrics=accuracy(2),
        logits=True,
        example=torch.zeros(1, 4),
        classes=2,
    )
    return replace(made, **changes).sealed()


def teacher() -> nn.Sequential:
    """Looks at the sign of the first number."""
    with global_seed(0):
        made = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        made[0].weight[6:] = torch.tensor([[5.0, 0, 0, 0], [-5.0, 0, 0, 0]])
        made[2].weight.copy_(torch.eye(8))
        made[4].weight[:, 6:] = torch.tensor([[-3.0, 3.0], [3.0, -3.0]])
    return made


def problem(network=None, importance="l2", **changes) -> Problem:
    space = Compression(network=network or teacher(), input_shape=(4,), steps=4, importance=importance)
    return Problem(space=space, objectives=(Objective("accuracy", "max"),), task=task(**changes))


def narrow(space):
    return space.scaled(0.25)


def test_it_trains_towards_the_logits_of_the_teacher():
    """The same as a plain loop with AdamW, half a cosine and mean squared errors."""
    made = problem()
    space, arch = made.space, narrow(made.space)
    found = Distil(made, recipe={**CPU, "epochs": 3, "lr": 0.02, "weight_decay": 0.0}, keep="last")(Proposal(arch), 7)
    student, master = space.build(arch).train(), teacher()
    optimizer = torch.optim.AdamW(student.parameters(), 0.02, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    generator = torch.Generator().manual_seed(derive(derive(7, "training"), "data"))
    for _ in range(3):
        for x, _ in batches(generator, 4):
            loss = (student(x) - master(x).detach()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    x, y = (torch.cat(parts) for parts in zip(*made.task.valid(), strict=True))
    assert found["accuracy"] == pytest.approx(float((student(x).argmax(1) == y).float().mean()), abs=1e-6)
    assert found["epochs"] == 3


def test_it_costs_the_epochs_of_a_student_that_is_not_stopped():
    assert Distil(problem()).epochs(0.5) == 5
    assert Distil(problem(), recipe={"epochs": 9}, hopeless=0.9).epochs(1.0) == 9


def test_students_start_from_inherited_weights():
    made = problem()
    whole = Distil(made, recipe={**CPU, "epochs": 1, "lr": 1e-9})
    assert whole(Proposal(made.space.reference), 0)["accuracy"] > 0.9


def test_the_best_epoch_counts_or_the_last():
    made, recipe = problem(), {**CPU, "epochs": 4, "lr": 0.3}
    arch, seed = narrow(made.space), 3
    seen = Distil(made, recipe=recipe, curve=True)(Proposal(arch), seed)
    curve = [seen[f"accuracy_{e}"] for e in range(1, 5)]
    assert len(set(curve)) > 1
    assert seen["accuracy"] == max(curve)
    assert Distil(made, recipe=recipe, keep="last")(Proposal(arch), seed)["accuracy"] == curve[-1]


def test_the_fidelity_scales_the_epochs():
    made = problem()
    evaluator = Distil(made, recipe={**CPU, "epochs": 4})
    assert [evaluator(Proposal(narrow(made.space), f), 0)["epochs"] for f in (0.1, 0.5, 1.0)] == [1, 2, 4]


def test_the_hopeless_are_stopped_and_keep_what_they_have():
    made = problem(importance="none")
    arch = narrow(made.space)
    recipe = {**CPU, "epochs": 4, "lr": 1e-9}
    plain = Distil(made, recipe=recipe)(Proposal(arch), 0)
    assert plain["accuracy"] < 0.9  # it has lost the two units that matter
    stopped = Distil(made, recipe=recipe, hopeless=0.99)(Proposal(arch), 0)
    assert stopped == {**plain, "epochs": 1}
    later = Distil(made, recipe=recipe, hopeless=0.99, patience=3)(Proposal(arch), 0)
    assert later["epochs"] == 3
    assert Distil(made, recipe=recipe, hopeless=0.99)(Proposal(made.space.reference), 0)["epochs"] == 4


def test_the_recipes_own_distillation():
    made, recipe = problem(), {**CPU, "epochs": 2, "lr": 0.05, "distil_weight": 1.0}
    arch = narrow(made.space)
    by = {loss: Distil(made, recipe=recipe, loss=loss, curve=True)(Proposal(arch), 0) for loss in ("logits", "recipe")}
    assert all(0 <= found["accuracy"] <= 1 for found in by.values())
    alone = Distil(made, recipe={**recipe, "distil_weight": 0.0}, loss="recipe", curve=True)(Proposal(arch), 0)
    assert alone["accuracy"] >= 0.5


def test_a_whole_recipe_is_taken_as_it_is():
    assert Distil(problem(), recipe=Recipe(epochs=2)).recipe == Recipe(epochs=2, validate=1)
    assert Distil(problem()).recipe.optimizer == "adamw"
    assert Distil(problem(), recipe={"epochs": 3}).recipe.lr == 1e-3


def test_the_teacher_may_come_from_a_file(tmp_path):
    save_file(teacher().state_dict(), tmp_path / "teacher.safetensors")
    untrained = replace(problem(), space=Tiny(classes=2, size=4))
    with pytest.raises(CapabilityError, match="Distil needs Pretrained"):
        Distil(untrained)
    other = teacher()
    nn.init.zeros_(other[4].weight)
    made = problem(other)
    evaluator = Distil(made, recipe={**CPU, "epochs": 8, "lr": 0.03}, teacher=tmp_path / "teacher.safetensors")
    assert evaluator(Proposal(made.space.reference), 0)["accuracy"] > 0.9
    save_file({"a": torch.zeros(2)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ConfigError, match="does not hold the weights"):
        Distil(made, recipe=CPU, teacher=tmp_path / "wrong.safetensors")(Proposal(made.space.reference), 0)


def test_an_untrained_teacher_is_refused():
    space = Compression(network="nets:residual", size=8, steps=2)
    with pytest.raises(CapabilityError, match=r"needs a trained teacher.*weights = 'FILE'"):
        Distil(replace(problem(), space=space))


def test_a_teacher_that_does_not_fit_the_task_is_named():
    wide = problem(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    with pytest.raises(DataError, match="the task has 2 classes"):
        Distil(wide, recipe=CPU)(Proposal(wide.space.reference), 0)
    with pytest.raises(DataError, match="cannot take the task's example"):
        Distil(problem(example=torch.zeros(1, 5)), recipe=CPU)(Proposal(wide.space.reference), 0)


def test_what_is_not_a_number_is_an_error():
    broken = teacher()
    with torch.no_grad():
        broken[4].bias[0] = float("nan")
    made = problem(broken)
    with pytest.raises(DivergedError, match="teacher's outputs are not finite"):
        Distil(made, recipe=CPU)(Proposal(made.space.reference), 0)
    wild = problem()
    with pytest.raises(DivergedError, match="loss is"):
        Distil(wild, recipe={**CPU, "optimizer": "sgd", "lr": 1e30})(Proposal(wild.space.reference), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hopeless": 1.0}, "hopeless is 1.0"),
        ({"patience": 0}, "patience 0"),
        ({"loss": "mse"}, "loss is 'mse'"),
        ({"keep": "first"}, "keep 'first'"),
        ({"recipe": {"epoch": 3}}, "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Distil(problem(), **settings)


def test_training_goes_on_from_the_weights_that_counted(tmp_path):
    made = problem()
    arch = narrow(made.space)
    first = Distil(made, recipe={**CPU, "epochs": 4, "lr": 0.3})
    reached = first.inherit(Proposal(arch), 3, parent=None, keep=tmp_path / "a.safetensors")
    assert reached == first(Proposal(arch), 3)
    idle = Distil(made, recipe={**CPU, "epochs": 1, "lr": 1e-9})
    again = idle.inherit(
        Proposal(arch, parent=0), 0, parent=tmp_path / "a.safetensors", keep=tmp_path / "b.safetensors"
    )
    assert again["accuracy"] == reached["accuracy"]
    assert isinstance(first, Heritable)
    for proposal, file in ((Proposal(arch, parent=0), None), (Proposal(arch), tmp_path / "a.safetensors")):
        with pytest.raises(CapabilityError, match="is the parent of"):
            idle.inherit(proposal, 0, parent=file, keep=None)
    with pytest.raises(CapabilityError, match="another network"):
        idle.inherit(Proposal(made.space.reference, parent=0), 0, parent=tmp_path / "a.safetensors", keep=None)


def test_it_needs_a_task():
    with pytest.raises(CapabilityError, match="needs a task"):
        Distil(replace(problem(), task=None))

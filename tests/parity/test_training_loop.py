"""Our loop makes the weights that a bare torch loop makes, bit for bit."""

import math

import torch
from torch.nn.functional import cross_entropy, softmax

from cnn import same_weights, small_cnn, small_task
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.training import Recipe, fit


def bare(module, task, epochs, steps, loss, lr, clip=0.0, make=None):
    decayed = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": plain, "weight_decay": 0.0}]
    optimizer = (make or (lambda g: torch.optim.SGD(g, lr, momentum=0.9, nesterov=True)))(groups)
    generator, step = torch_rng(3, "data"), 0
    module.train()
    for epoch in range(epochs):
        with global_seed(derive(3, "epoch", epoch, 0)):
            for x, y in task.train(generator):
                warm = (step + 1) / (steps + 1)
                cosine = 0.5 * (1 + math.cos(math.pi * (step - steps) / ((epochs - 1) * steps)))
                for group in optimizer.param_groups:
                    group["lr"] = lr * (warm if step < steps else cosine)
                optimizer.zero_grad()
                loss(module(x), x, y).backward()
                if clip:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
                optimizer.step()
                step += 1
    assert step == epochs * steps
    return module


def test_sgd_with_dropout_batch_norm_and_augmentation():
    task, ours = small_task(), small_cnn(dropout=0.5)
    fit(ours, task, Recipe(epochs=3, lr=0.1, weight_decay=1e-3, device="cpu"), seed=3)
    theirs = bare(small_cnn(dropout=0.5), task, 3, 4, lambda out, x, y: cross_entropy(out, y), 0.1)
    assert same_weights(ours, theirs)


def test_adamw_and_clipping():
    task, ours = small_task(), small_cnn()
    fit(ours, task, Recipe(epochs=3, optimizer="adamw", lr=0.01, weight_decay=1e-3, clip=0.5, device="cpu"), seed=3)
    theirs = small_cnn()
    bare(theirs, task, 3, 4, lambda out, x, y: cross_entropy(out, y), 0.01, 0.5, lambda g: torch.optim.AdamW(g, 0.01))
    assert same_weights(ours, theirs)


def test_smoothing_and_distillation_are_torchs_losses():
    """Up to rounding: the terms are added in another order than inside `cross_entropy`."""
    task, ours, teacher = small_task(), small_cnn(), small_cnn(dropout=0.9).train()
    recipe = Recipe(epochs=2, weight_decay=1e-3, label_smoothing=0.1, distil_weight=0.3, temperature=2, device="cpu")
    fit(ours, task, recipe, seed=3, teacher=teacher)
    assert teacher[-2].training
    teacher.eval()

    def loss(out, x, y):
        target = softmax(teacher(x).detach() / 2, dim=1)
        return 0.7 * cross_entropy(out, y, label_smoothing=0.1) + 0.3 * 4 * (
            cross_entropy(out / 2, target) - cross_entropy(target.log(), target)
        )

    theirs = bare(small_cnn(), task, 2, 4, loss, 0.1)
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)

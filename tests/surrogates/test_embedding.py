from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sartor.core.abilities import Described
from sartor.core.errors import ConfigError
from sartor.core.rng import global_seed
from sartor.spaces.nats_size import NatsSize
from sartor.spaces.nats_topology import NatsTopology
from sartor.surrogates.curves import plain
from sartor.surrogates.embedding import (
    Encoding,
    Lstm,
    Recipe,
    Sequences,
    Transformer,
    embed,
    keep,
    load,
    one_thread,
    train,
)
from sartor.surrogates.gaussian import leave_one_out, rbf

from strategies.searching import Plain  # isort: skip

SMALL = Recipe(hidden=4, layers=2)


class Deep(Plain, Described):
    """Describes as many layers as its first choice says."""

    def description(self, arch):
        return np.array([[1.0, i, arch[1]] for i in range(arch[0] + 1)])


def sequences(*lengths, features=3):
    rows = torch.zeros(len(lengths), max(lengths), features)
    rng = torch.Generator().manual_seed(0)
    for i, n in enumerate(lengths):
        rows[i, :n] = torch.randn(n, features, generator=rng)
    return Sequences(rows, torch.tensor(lengths))


def test_rows_by_hand():
    coded = Encoding(Plain(3, 2, ordered=True))([(1, 0), (2, 1)])
    assert coded.lengths.tolist() == [2, 2]
    assert coded.rows[0].tolist() == [[1, 0, 0, 1, 0, 0.5, 0.5], [0, 1, 1, 0, 0, 0, 0]]
    assert coded.rows[1].tolist() == [[1, 0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1, 1]]


def test_words_have_no_order_and_no_size():
    coded = Encoding(space := NatsTopology())([space.reference])
    assert coded.rows.shape == (1, 6, 6 + 5 + 2)
    assert not coded.rows[0, :, -2:].any()
    assert Encoding(NatsSize()).features == 5 + 8 + 2


def test_a_description_is_taken_as_it_is():
    coded = Encoding(Deep(4, 3))([(0, 2), (3, 1)])
    assert coded.lengths.tolist() == [1, 4]
    assert coded.rows[0].tolist() == [[1, 0, 2], *[[0, 0, 0]] * 3]
    assert coded[:1].rows.shape == (1, 1, 3)
    assert not coded.even
    assert Encoding(Deep(4, 3)).features == 3


@pytest.mark.parametrize("kind", ["lstm", "transformer", "graph"])
@pytest.mark.parametrize("length", [1, 5, 200])
def test_what_comes_after_the_end_does_not_matter(kind, length):
    """A network alone, and beside a longer one; there is no longest one."""
    encoder = replace(SMALL, encoder=kind).fresh(3, 0)
    both = sequences(length, length + 7)
    alone = embed(encoder, both[:1], SMALL)
    assert alone.shape == (1, 8)
    assert torch.allclose(alone, embed(encoder, both, SMALL)[:1], atol=1e-5)
    assert torch.allclose(alone.norm(dim=1), torch.ones(1).double(), atol=1e-6)
    both.rows[0, length:] = 9.0
    assert torch.allclose(alone, embed(encoder, both, SMALL)[:1], atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "transformer", "graph"])
def test_order_matters(kind):
    encoder, coded = replace(SMALL, encoder=kind).fresh(3, 0), sequences(5)
    turned = Sequences(coded.rows.flip(1), coded.lengths)
    assert not torch.allclose(embed(encoder, coded, SMALL), embed(encoder, turned, SMALL), atol=1e-4)


def test_many_are_embedded_in_parts():
    coded, encoder = sequences(*[4] * 600), SMALL.fresh(3, 0)
    parts = torch.cat([embed(encoder, coded[i : i + 1], SMALL) for i in (0, 255, 256, 599)])
    assert torch.allclose(embed(encoder, coded, SMALL)[[0, 255, 256, 599]], parts, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "transformer", "graph"])
def test_training_predicts_what_is_left_out(kind):
    """Values that follow from one of two choices: the others say each one only if the embedding tells which."""
    archs = [(i, j) for i in range(6) for j in range(6)]
    y = torch.tensor([1.0 if i > 2 else -1.0 for i, _ in archs]).double()
    recipe = Recipe(kind, hidden=8, layers=1, lr=0.01, updates=100)
    encoder, coded = recipe.fresh(14 + 2 - 6, 0), Encoding(Plain(6, 6, ordered=True))(archs)
    errors, found = [], []
    for _ in range(2):
        points = embed(encoder, coded, recipe)
        mean, _ = leave_one_out(rbf(points, points, recipe.alpha) + recipe.beta * torch.eye(36).double(), y)
        errors.append(float((mean - y).square().mean()))
        found = found or train(encoder, coded, plain(y), recipe)
    assert found[-1] > found[0]
    assert errors[1] < 0.2
    assert errors[1] < errors[0]


class Forked(Plain):
    """Four layers; the first choice says what leads into the last beside the third."""

    def description(self, arch):
        return np.array([[1.0, i, 0.5] for i in range(4)])

    def edges(self, arch):
        return np.array([[0, 1, 2, arch[0]], [1, 2, 3, 3]])


def test_links_are_what_the_space_says():
    coded = Encoding(Forked(2, 2), links=True)([(0, 0), (1, 0), (0, 0)])
    assert coded.links.shape == (3, 4, 4)
    assert torch.equal(coded.links[0], coded.links[2])
    assert coded.links[0].nonzero().tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
    assert coded.links[1].nonzero().tolist() == [[0, 1], [1, 2], [1, 3], [2, 3]]
    assert torch.equal(coded[1:].links[0], coded.links[1])
    assert Encoding(Forked(2, 2))([(0, 0)]).links is None
    assert Encoding(Plain(2, 2), links=True)([(0, 0)]).links is None


def test_graphs_differ_by_their_links_alone():
    encoder, coded = replace(SMALL, encoder="graph").fresh(3, 0), Encoding(Forked(2, 2), links=True)([(0, 0), (1, 0)])
    a, b = embed(encoder, coded, SMALL)
    assert torch.equal(coded.rows[0], coded.rows[1])
    assert not torch.allclose(a, b, atol=1e-4)
    a, b = embed(encoder, Encoding(Forked(2, 2))([(0, 0), (1, 0)]), SMALL)
    assert torch.allclose(a, b)


def test_messages_are_means_over_what_leads_in_and_out():
    """One round against a loop over rows and edges."""
    encoder, coded = Recipe("graph", hidden=2, layers=1).fresh(3, 0), Encoding(Forked(2, 2), links=True)([(1, 0)])
    with torch.no_grad():
        states = encoder.enter(coded.rows[0])
        x, rows = encoder.norms[0](states), []
        for i in range(4):
            before = x[i - 1] if i else torch.zeros(4)
            after = x[i + 1] if i < 3 else torch.zeros(4)
            edges = [(a, b) for a, b in coded.links[0].nonzero().tolist()]
            into = [x[a] for a, b in edges if b == i] or [torch.zeros(4)]
            out = [x[b] for a, b in edges if a == i] or [torch.zeros(4)]
            heard = torch.cat([x[i], before, after, torch.stack(into).mean(0), torch.stack(out).mean(0)])
            rows.append(states[i] + encoder.rounds[0](heard).relu())
        wanted = torch.nn.functional.normalize(torch.stack(rows).mean(0), dim=0)
        assert torch.allclose(encoder(coded)[0], wanted, atol=1e-6)


def test_an_embedding_is_found_in_a_run_folder(tmp_path):
    path = tmp_path / "run" / "search" / "artifacts" / "embedding.safetensors"
    path.parent.mkdir(parents=True)
    keep([SMALL.fresh(3, 0)], 3, SMALL, path)
    run = tmp_path / "run"
    for named in (path, run, run / "search", run / "artifacts" / "embedding.safetensors"):
        assert len(load(named, 3, SMALL)) == 1
    with pytest.raises(ConfigError, match="is not an embedding"):
        load(tmp_path, 3, SMALL)


def test_training_ends_when_nothing_changes():
    coded, y = sequences(*[3] * 6), plain(torch.zeros(6).double())
    still = replace(SMALL, lr=1e-9)
    assert len(train(still.fresh(3, 0), coded, y, still)) == 7
    assert len(train(still.fresh(3, 0), coded, y, replace(still, updates=4))) == 4
    assert len(train(still.fresh(3, 0), coded, y, replace(still, tolerance=0.0, updates=30))) == 30


def test_the_lstm_is_that_of_the_paper():
    lstm = Recipe().fresh(272, 0).lstm
    assert (lstm.hidden_size, lstm.num_layers, lstm.bidirectional) == (64, 4, True)
    assert embed(Recipe().fresh(272, 0), sequences(3, features=272), Recipe()).shape == (1, 128)


def test_equal_seeds_equal_encoders():
    before = torch.get_rng_state()
    a, b, c = (SMALL.fresh(3, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not all(torch.equal(a[n], c[n]) for n in a)
    assert torch.equal(before, torch.get_rng_state())


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kind", ["lstm", "transformer", "graph"])
def test_kept_and_loaded(kind, tmp_path):
    recipe, path = replace(SMALL, encoder=kind), tmp_path / "embedding.safetensors"
    encoders = [recipe.fresh(3, seed) for seed in range(3)]
    keep(encoders, 3, recipe, path)
    first = path.read_bytes()
    found = load(path, 3, recipe)
    assert len(found) == 3
    for ours, theirs in zip(encoders, found, strict=True):
        assert torch.equal(embed(ours, sequences(4, 4), recipe), embed(theirs, sequences(4, 4), recipe))
    keep(found, 3, recipe, path)
    assert path.read_bytes() == first


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "embedding.safetensors"
    with pytest.raises(ConfigError, match="is not an embedding that esnac has written"):
        load(path, 3, SMALL)
    path.write_text("words")
    with pytest.raises(ConfigError, match="is not an embedding"):
        load(path, 3, SMALL)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="is not an embedding"):
        load(path, 3, SMALL)
    keep([SMALL.fresh(3, 0)], 3, SMALL, path)
    with pytest.raises(ConfigError, match="has features 3, here it is 5: its networks are described"):
        load(path, 5, SMALL)
    with pytest.raises(ConfigError, match="has hidden 4, here it is 6: set hidden = 4"):
        load(path, 3, replace(SMALL, hidden=6))


@pytest.mark.parametrize(
    "settings", [{"encoder": "mlp"}, {"hidden": 0}, {"layers": 0}, {"alpha": 0.0}, {"beta": -1.0}, {"lr": 0.0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is"):
        Recipe(**settings)


def test_encoders_are_modules_of_their_own():
    with global_seed(0):
        assert sum(p.numel() for p in Lstm(3, 4, 1).parameters()) == 2 * (4 * 4 * (3 + 4) + 2 * 16)
        assert Transformer(3, 4, 2)(sequences(2, 3)).shape == (2, 8)

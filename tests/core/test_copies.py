from __future__ import annotations

import copy
import logging
import re
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrizations, prune

from sartor.core.copies import faithful, fold, load, ready, undisturbed, unwrapped
from sartor.core.errors import ConfigError
from sartor.core.rng import global_seed
from users import COPIES, Net, belongings, hooked, untouched


@pytest.fixture(params=COPIES)
def network(request):
    with global_seed(0):
        return COPIES[request.param]()


def x(examples=3):
    return torch.randn(examples, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def output(network):
    with torch.no_grad():
        return network.eval()(x())


def test_the_list_is_whole():
    assert len(COPIES) >= 35


def test_a_copy_computes_the_same_and_shares_nothing(network):
    before = belongings(network)
    made = faithful(network)
    assert type(made) is type(unwrapped(network))
    assert not any("_orig_mod" in name for name, _ in made.named_modules())
    assert not {p.data_ptr() for p in made.parameters()} & {p.data_ptr() for p in network.parameters()}
    flags = {n: p.requires_grad for n, p in unwrapped(network).named_parameters() if "_orig_mod" not in n}
    assert flags.items() <= {n: p.requires_grad for n, p in made.named_parameters()}.items()
    assert made.training == network.training
    with torch.no_grad():
        for part in made.parameters():
            part.mul_(1.5)
    made.train()
    made(x()).sum().backward()  # of which nothing may show in the original
    made.eval()
    made(x())
    assert untouched(before, belongings(network))
    torch.testing.assert_close(output(faithful(network)), output(network), rtol=1e-5, atol=1e-6)


def alike(made, wanted, seen):
    """Whether two objects are built alike: types, values, and which parts are the same object."""
    if isinstance(made, weakref.ref):
        made, wanted = made(), wanted()
    if id(made) in seen or id(wanted) in seen.values():
        return seen.get(id(made)) == id(wanted)
    if isinstance(made, (torch.Tensor, nn.Module, list, dict, set)):
        seen[id(made)] = id(wanted)
    if isinstance(made, torch.Tensor):
        return torch.equal(made, wanted) and made.requires_grad == wanted.requires_grad
    if isinstance(made, (nn.Module, dict, list, tuple)):
        parts = [dict(enumerate(v)) if isinstance(v, (list, tuple)) else v for v in (made, wanted)]
        mine, other = (vars(v) if isinstance(v, nn.Module) else v for v in parts)
        return (
            type(made) is type(wanted)
            and list(mine) == list(other)
            and all(alike(mine[k], other[k], seen) for k in mine)
        )
    return made == wanted if type(made).__eq__ is not object.__eq__ else callable(made) == callable(wanted)


LAYERS = {
    kind.__name__: kind
    for kind in vars(nn).values()
    if isinstance(kind, type)
    and issubclass(kind, nn.Module)
    and kind not in (nn.Container, nn.Transformer, nn.DataParallel)
    and not issubclass(kind, LazyModuleMixin)  # without weights until it has run
}


def made_of(kind):
    """A layer of torch, with the numbers that most of them take."""
    for given in ((), (4,), (4, 2), (4, 4, 1), (2, 4, 4, [8])):
        try:
            return kind(*given)
        except (TypeError, ValueError, AssertionError, RuntimeError, IndexError, NotImplementedError):
            continue
    return None


@pytest.mark.parametrize("name", LAYERS)
def test_torchs_layers_are_copied_as_deepcopy_does(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are said to be of old
        layer = made_of(LAYERS[name])
        if layer is None:
            pytest.skip("it takes a network, or processes")
        found, wanted = faithful(layer.eval()), copy.deepcopy(layer)
    assert alike(found, wanted, {})
    assert not {id(v) for v in vars(found).values() if isinstance(v, (dict, set, list))} & {
        id(v) for v in vars(layer).values()
    }


def test_most_of_torchs_layers_are_tried():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(made_of(kind) is not None for kind in LAYERS.values()) >= 120


class Odd(nn.Module):
    """Parts that know each other, a container under two names, keys that are modules."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.inner = nn.Sequential(self.layer, nn.ReLU())
        object.__setattr__(self.inner, "owner", self)
        self.here = self.there = {}
        self.by_part = {self.layer: nn.Parameter(torch.ones(2)), "n": 3}
        self.parts, self.numbers = {self.layer: None}, (1, (2, 3))


class Careful(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo):
        made = Careful(self.in_features, self.out_features)
        made.copied = True
        return made


class Stated(nn.Linear):
    """Says itself what of it is copied."""

    def __getstate__(self):
        return {**super().__getstate__(), "note": "from a state"}


def test_parts_that_know_each_other_know_the_copies():
    odd = Odd()
    made = faithful(odd)
    assert made.inner.owner is made
    assert made.inner[0] is made.layer is not odd.layer
    assert made.here is made.there is not odd.here
    assert next(iter(made.by_part)) is next(iter(made.parts)) is made.layer
    assert made.numbers == (1, (2, 3))


def test_classes_that_say_how_they_are_copied_are_heard():
    made = faithful(nn.Sequential(Careful(2, 3), nn.Linear(3, 2), Stated(2, 2)))
    assert made[0].copied
    assert made[2].note == "from a state"


def test_flags_of_parts_are_kept():
    network = Net().train()
    network.bn.eval()
    network.first.requires_grad_(False)
    made = faithful(network)
    assert [m.training for m in made.modules()] == [m.training for m in network.modules()]
    assert not made.bn.training
    assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in network.parameters()]


def test_hooks_are_kept():
    network = hooked()
    made = faithful(network)
    assert len(made.first._forward_hooks) == 1
    made(x())
    assert made.head.looks == 1
    assert not hasattr(network.head, "looks")


def test_what_a_hook_writes_down_is_its_own():
    network, seen = Net(), []
    network.second.register_forward_hook(lambda _module, _args, out: seen.append(out))
    network.head.register_forward_hook(lambda _m, _a, out, store=seen: store.append(out))
    faithful(network)(x())
    assert not seen
    network(x())
    assert len(seen) == 2


def test_weak_references_and_methods_know_the_copy():
    network = Net()
    network.head.around = weakref.ref(network)
    network.tools = {"maps": network.maps, "more": [network.head.forward]}
    made = faithful(network)
    assert made.head.around() is made
    assert made.tools["maps"].__self__ is made
    assert made.tools["more"][0].__self__ is made.head
    assert network.tools["maps"].__self__ is network


def test_shared_parts_stay_shared():
    made = faithful(COPIES["shared"]())
    assert made.blocks[0] is made.blocks[1] is made.again
    assert made.a.weight is made.b.weight


def test_other_weights_may_stand_in_their_place():
    network = Net()
    weight = nn.Parameter(torch.zeros(5, 24))
    made = faithful(network, {id(network.head.weight): weight})
    assert made.head.weight is weight
    assert made.first.weight is not network.first.weight


def test_hooks_of_a_wrapper_go_to_what_it_wraps():
    network = Net()
    network.second = torch.compile(network.second, backend="eager")
    network.second.register_forward_hook(lambda _module, _args, out: out * 2)
    made = faithful(network)
    assert type(made.second) is nn.Conv2d
    torch.testing.assert_close(output(made), output(network))


def test_what_forbids_copying_is_told():
    class Single(Net):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one of me")

    with pytest.raises(ConfigError, match=r"Single cannot be copied \(RuntimeError: there is one of me\)"):
        faithful(Single())


def test_what_cannot_be_copied_is_shared(caplog):
    network = COPIES["what cannot be copied"]()
    with caplog.at_level(logging.INFO):
        made = faithful(network)
    assert made.lock is network.lock
    assert made.files is not network.files
    assert made.files["log"][0] is network.files["log"][0]
    assert "a lock cannot be copied and is shared" in caplog.text


def test_folding_leaves_plain_weights_and_the_same_outputs(network):
    before, wanted = belongings(network), output(faithful(network))
    made = faithful(network)
    learns = any(p.requires_grad for p in made.parameters())
    words = fold(made)
    assert untouched(before, belongings(network))
    torch.testing.assert_close(output(made), wanted, rtol=1e-4, atol=1e-5)
    names = list(made.state_dict())
    for word in words:  # to be trained, or frozen, as what they were made of
        assert isinstance(made.get_parameter(word.split(" ")[0]), nn.Parameter)
    assert not [n for n in names if re.search(r"original|_(orig|mask|g|v|u)$", n)]
    assert any(p.requires_grad for p in made.parameters()) == learns
    torch.testing.assert_close(output(network), wanted, rtol=1e-4, atol=1e-5)  # its class is not the copy's
    assert not fold(made)
    assert not words or type(made.second) is nn.Conv2d


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weight norm", ["first.weight", "second.weight", "head.weight", "weight norm"]),
        ("old spectral norm", ["first.weight", "second.weight", "head.weight", "spectral norm"]),
        ("parametrisation", ["second.weight", "head.weight", "Symmetric"]),
        ("pruned", ["first.weight", "second.weight", "head.bias", "pruning mask"]),
        ("plain", [""]),
    ],
)
def test_what_is_folded_is_named(name, words):
    *weights, kind = words
    assert fold(faithful(COPIES[name]())) == tuple(f"{weight} ({kind})" for weight in weights)


def test_frozen_weights_stay_frozen_when_they_are_folded():
    for norm in (parametrizations.weight_norm, parametrizations.spectral_norm, lambda m: prune.identity(m, "weight")):
        layer = norm(nn.Linear(4, 3)).requires_grad_(False)
        made = nn.Sequential(faithful(layer))
        fold(made)
        assert not made[0].weight.requires_grad


def test_a_weight_that_another_layer_shares_is_folded_for_itself():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    parametrizations.spectral_norm(network[1])
    made = faithful(network)
    fold(made)
    assert torch.equal(made[0].weight, network[0].weight)
    assert not torch.equal(made[1].weight, made[0].weight)


def test_a_network_that_is_ready_has_what_its_forward_makes_first(network):
    before = belongings(network)
    made = ready(network, x())
    assert untouched(before, belongings(network))
    assert not made.training
    assert {p.data_ptr() for p in made.parameters()} == {p.data_ptr() for p in unwrapped(network).parameters()}
    torch.testing.assert_close(made(x()), output(faithful(network)), rtol=1e-5, atol=1e-6)
    assert getattr(made, "table", x()) is not None


def disturb(network):
    output(network)
    network.register_forward_hook(lambda *_: None)
    raise ZeroDivisionError


def test_nothing_is_left_behind(network):
    before = belongings(network)
    with pytest.raises(ZeroDivisionError), undisturbed(network):
        disturb(network)
    assert untouched(before, belongings(network))


def test_a_state_with_what_forward_makes_first_can_be_loaded():
    trained, fresh = COPIES["lazy buffer, after a step"](), COPIES["lazy buffer"]()
    load(fresh, trained.state_dict())
    assert torch.equal(fresh.table, trained.table)
    torch.testing.assert_close(output(fresh), output(trained))
    with pytest.raises(RuntimeError, match="Missing key"):
        load(fresh, Net().head.state_dict())
    with pytest.raises(RuntimeError, match="nowhere"):
        load(Net(), {**Net().state_dict(), "nowhere.table": torch.zeros(1)})


@pytest.mark.parametrize(
    "kind", [parametrizations.weight_norm, parametrizations.spectral_norm, torch.nn.utils.weight_norm]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_recurrent_layer_knows_its_folded_weights(kind):
    layer = nn.LSTM(4, 6, 2, bidirectional=True)
    order, sequence = [name for name, _ in layer.named_parameters()], torch.randn(3, 2, 4)
    for name in ("weight_ih_l0", "weight_hh_l1_reverse"):
        kind(layer, name)
    made = nn.Sequential(faithful(layer.eval()))
    assert len(fold(made)) == 2
    assert type(made[0]) is nn.LSTM
    assert [name for name, _ in made[0].named_parameters()] == order
    torch.testing.assert_close(made(sequence)[0], layer(sequence)[0])
    before = made(sequence)[0]
    with torch.no_grad():
        made[0].weight_ih_l0.mul_(2)
    assert not torch.allclose(made(sequence)[0], before)

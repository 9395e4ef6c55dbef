from __future__ import annotations

import logging
import re
import weakref

import pytest
import torch
from torch import nn
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

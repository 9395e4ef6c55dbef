from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import CapabilityError, SartorError
from sartor.costs.params import Params
from sartor.spaces.widths import Widths
from sartor.surgery.analysis.coupling import couple


class Sequence(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: int | bool) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 12, 3, padding=1)
        self.recurrent = kind(12, 10, batch_first=True, **settings)
        ways = 2 if settings.get("bidirectional") else 1
        self.head = nn.Linear(10 * ways, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(torch.relu(self.stem(x)).transpose(1, 2))
        return self.head(y[:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_hidden_units_go_from_all_gates_together(kind):
    network = Sequence(kind).eval()
    space = Widths(network=network, input_shape=(4, 9), divisor=1, multipliers=(0.5, 1))
    assert {c.name: c.options for c in space.choices} == {"stem": (6, 12), "recurrent": (5, 10)}
    x, supernet = torch.randn(3, 4, 9), space.supernet().eval()
    torch.testing.assert_close(space.build(space.reference).eval()(x), network(x))
    for arch in ((0, 0), (0, 1), (1, 0)):
        found = space.build(arch).eval()
        assert found.recurrent.hidden_size == (5, 10)[arch[1]]
        assert sum(p.numel() for p in found.parameters()) == Params(space)([arch]).item()
        torch.testing.assert_close(found(x), supernet(x, [torch.eye(2)[a] for a in arch]))


def test_a_hidden_unit_that_is_cut_is_one_that_says_nothing():
    """Zero rows keep an LSTM's unit at zero, so the rest must come out the same without it."""
    network = Sequence(nn.LSTM).double().eval()
    lstm = network.recurrent
    gone = [1, 4, 5, 7, 8]
    rows = [gate * 10 + unit for gate in range(4) for unit in gone]
    with torch.no_grad():
        for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0):
            weight[rows] = 0
    space = Widths(network=network, input_shape=(4, 9), divisor=1, multipliers=(0.5, 1))
    x = torch.randn(3, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(space.build((1, 0)).eval()(x), network(x))


SETTINGS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "bias": False},
    {"batch_first": False, "bidirectional": True},
]
KINDS = [nn.LSTM, nn.GRU, nn.RNN]


def ways(settings):
    return 1 + settings.get("bidirectional", False)


@pytest.mark.parametrize(
    "settings", [*SETTINGS, {"proj_size": 4, "num_layers": 2}, {"proj_size": 7, "bidirectional": True}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_any_hidden_units_go(check, net, kind, settings):
    """Outputs of all steps, and the last states, are read."""
    if "proj_size" in settings and kind is not nn.LSTM:
        pytest.skip("only an LSTM has projections")
    time_first = settings.get("batch_first") is False
    width = settings.get("proj_size", 10) * ways(settings)

    def forward(self, x):
        y = torch.tanh(self.stem(x)).transpose(1, 2)
        y, states = self.recurrent(y.transpose(0, 1) if time_first else y)
        y = y.transpose(0, 1) if time_first else y
        hidden = states[0] if isinstance(states, tuple) else states
        return self.head(y).sum(1) + self.last(hidden[-1])

    layers = {
        "stem": nn.Conv1d(4, 12, 1),
        "recurrent": kind(12, 10, **({"batch_first": True} | settings)),
        "head": nn.Linear(width, 3),
        "last": nn.Linear(settings.get("proj_size", 10), 3),
    }
    check(net(forward, **layers), (4, 6), groups=[10, 12])


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_are_given_are_cut_alike(check, net, kind):
    """Those of one layer start the next, through a layer; the first ones come from the code."""

    def forward(self, x):
        start = torch.ones(4, len(x), 10, dtype=x.dtype)
        given = (start, start) if kind is nn.LSTM else start
        y, states = self.one(x, given)
        hidden = states[0] if kind is nn.LSTM else states
        start = self.bridge(hidden[-2:])
        given = (start, start) if kind is nn.LSTM else start
        return self.head(self.two(y, given)[0][:, -1])

    layers = {
        "one": kind(4, 10, 2, bidirectional=True, batch_first=True),
        "bridge": nn.Linear(10, 9),
        "two": kind(20, 9, bidirectional=True, batch_first=True),
        "head": nn.Linear(18, 3),
    }
    check(net(forward, **layers), (5, 4), groups=[9, 10])


def test_states_of_an_encoder_tie_its_decoder(check, net):
    def forward(self, x):
        _, states = self.encoder(x)
        return self.head(self.decoder(x, states)[0][:, -1])

    layers = {"encoder": nn.LSTM(4, 10, batch_first=True), "decoder": nn.LSTM(4, 10, batch_first=True)}
    found = check(net(forward, **layers, head=nn.Linear(10, 3)), (5, 4), groups=[10])
    assert set(found.groups[0].layers) == {"encoder", "decoder"}


def test_states_that_are_an_input_keep_their_size():
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gru, self.head = nn.Linear(4, 8), nn.GRU(8, 10, batch_first=True), nn.Linear(10, 3)

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            return self.head(self.gru(self.stem(x), state.transpose(0, 1))[0][:, -1])

    found = couple(Given(), (torch.zeros(1, 5, 4), torch.zeros(1, 1, 10)))
    assert [g.name for g in found.groups] == ["stem"]
    assert "states of gru" in {f.layer: f.reason for f in found.fixed}["gru"]


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells_in_a_loop(check, net, kind, gates):
    del gates

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        state = torch.zeros(len(x), 10, dtype=x.dtype)
        state = (state, state) if kind is nn.LSTMCell else state
        for i in range(x.shape[1]):
            state = self.cell(x[:, i], state)
        return self.head(state[0] if kind is nn.LSTMCell else state)

    layers = {"stem": nn.Linear(4, 12), "cell": kind(12, 10), "head": nn.Linear(10, 3)}
    found = check(net(forward, **layers), (5, 4), groups=[10, 12])
    assert {g.name for g in found.groups} == {"stem", "cell"}


class Own(nn.Module):
    """Nothing of its code knows a number."""

    def __init__(self, kind, **settings) -> None:
        super().__init__()
        self.recurrent = kind(4, 10, batch_first=True, **settings)
        self.head = nn.Linear(settings.get("proj_size", 10) * ways(settings), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("settings", [*SETTINGS[:4], {"proj_size": 6}, {"proj_size": 9, "num_layers": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_stays_what_it_is_with_smaller_sizes(kind, settings):
    if "proj_size" in settings and kind is not nn.LSTM:
        pytest.skip("only an LSTM has projections")
    network = Own(kind, **settings).eval()
    space = Widths(network=network, input_shape=(5, 4), divisor=1)
    assert space.plain
    assert [c.name for c in space.choices] == ["recurrent"]
    x, supernet = torch.randn(3, 5, 4), space.supernet().eval()
    torch.testing.assert_close(space.build(space.reference).eval()(x), network(x))
    for option, size in enumerate(space.choices[0].options):
        found = space.build((option,)).eval()
        layer = found.recurrent
        assert type(layer) is kind
        assert (layer.input_size, layer.hidden_size) == (4, size)
        proj = {"proj_size": layer.proj_size} if layer.proj_size else {}
        assert 0 <= layer.proj_size < layer.hidden_size
        fresh = kind(4, size, batch_first=True, **{k: v for k, v in settings.items() if k != "proj_size"}, **proj)
        fresh.load_state_dict(layer.state_dict())
        torch.testing.assert_close(fresh(x)[0], layer(x)[0])
        torch.testing.assert_close(found(x), supernet(x, [torch.eye(len(space.choices[0].options))[option]]))
    assert space.choices[0].options[-1] == 10


def test_both_directions_lose_the_same_units_and_the_rest_is_the_original():
    network = Own(nn.LSTM, bidirectional=True).eval()
    space = Widths(network=network, input_shape=(5, 4), divisor=1, multipliers=(0.5, 1), importance="none")
    found = space.build((0,)).recurrent
    rows = [gate * 10 + unit for gate in range(4) for unit in range(5)]
    for end in ("", "_reverse"):
        whole, part = (getattr(m, f"weight_hh_l0{end}") for m in (network.recurrent, found))
        torch.testing.assert_close(part, whole[rows][:, :5])


def test_packed_sequences_are_not_cut_and_nothing_falls_over():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.lstm, self.head = nn.Linear(4, 8), nn.LSTM(8, 10, batch_first=True), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_sequence(list(self.stem(x)))
            return self.head(self.lstm(packed)[1][0][-1])

    try:
        found = couple(Packed(), torch.zeros(1, 5, 4))
    except CapabilityError as error:
        assert "test_recurrent.py" in str(error)  # noqa: PT017 - whether it can be followed depends on torch
    else:
        assert "lstm" not in {g.name for g in found.groups}
        assert "no rule for" in {f.layer: f.reason for f in found.fixed}["stem"]
    with pytest.raises(SartorError, match="'lstm' takes or gives something else than tensors"):
        couple(Packed(), torch.zeros(1, 5, 4), ["lstm"])


class Normed(nn.Module):
    """Where a channel is off, the norm's bias still speaks."""

    def __init__(self, kind: type[nn.RNNBase], **settings: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 12), nn.LayerNorm(12)
        self.recurrent = kind(12, 10, batch_first=True, **settings)
        self.head = nn.Linear(settings.get("proj_size", 10) * ways(settings), 3)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.norm(self.stem(x)))[0][:, -1])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, settings) for kind in KINDS for settings in SETTINGS[:4]),
        (nn.LSTM, {"proj_size": 4}),
        (nn.LSTM, {"proj_size": 6, "num_layers": 2, "bidirectional": True}),
    ],
)
def test_masks_compute_what_slices_compute(kind, settings):
    network = Normed(kind, **settings).double().eval()
    space = Widths(network=network, input_shape=(9, 4), divisor=1, multipliers=(0.5, 1))
    supernet, x = space.supernet().eval(), torch.randn(3, 9, 4, dtype=torch.float64)
    for arch in product((0, 1), repeat=len(space.choices)):
        kept = supernet.kept(arch)
        everything = np.ones(len(kept), dtype=bool)
        masked = supernet.engine(x, everything, torch.from_numpy(kept).to(x)[None])
        torch.testing.assert_close(masked, space.build(arch).eval()(x))


def test_examples_of_different_hidden_sizes_are_refused():
    space = Widths(network=Normed(nn.GRU).eval(), input_shape=(9, 4), divisor=1, multipliers=(0.5, 1))
    gates = [torch.eye(2)[[0, 1]], torch.eye(2)[[1, 0]]]
    with pytest.raises(CapabilityError, match="one width per batch"):
        space.supernet()(torch.randn(2, 9, 4), gates)


class Sums(nn.Module):
    """Its code holds numbers of channels: what is left of it is a graph."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.ways, self.given = kind(4, 10, 2, bidirectional=True, batch_first=True, dropout=0.5), kind(10, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.ways(x)
        y = (y[..., :10] + y[..., 10:]).transpose(0, 1)
        start = torch.ones(1, x.shape[0], 6, dtype=x.dtype)
        return self.head(self.given(y, (start, start) if isinstance(self.given, nn.LSTM) else start)[0][-1])


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_a_graph_stay_what_they_are(kind):
    network = Sums(kind).eval()
    space = Widths(network=network, input_shape=(5, 4), divisor=1, multipliers=(0.5, 1))
    assert not space.plain
    x, supernet = torch.randn(3, 5, 4), space.supernet().eval()
    torch.testing.assert_close(space.build(space.reference).eval()(x), network(x))
    for arch in product((0, 1), repeat=2):
        found = space.build(arch).eval()
        assert type(found.ways) is type(found.given) is kind
        assert (found.ways.hidden_size, found.given.hidden_size) == ((5, 10)[arch[0]], (3, 6)[arch[1]])
        assert found.given.input_size == found.ways.hidden_size
        torch.testing.assert_close(found(x), supernet(x, [torch.eye(2)[a] for a in arch]))
        assert found.state_dict().keys() == network.state_dict().keys()
    assert not torch.equal(space.build(space.reference).train()(x), network(x))  # its dropout works again


class Read(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_normed_layers_are_cut_and_keep_their_class(norm):
    network = Read()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        norm(network.lstm, name)
    space = Widths(network=network, input_shape=(5, 4), divisor=1)
    assert {c.name for c in space.choices} == {"lstm"}
    assert "lstm.weight_hh_l0 (weight norm) is folded into a plain weight" in space.notes
    assert space.plain
    small = space.build((0,))
    assert (type(small.lstm), small.lstm.hidden_size) == (nn.LSTM, 2)
    assert {name for name, _ in small.named_parameters()} >= {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}


def test_packed_sequences_are_refused_with_what_helps():
    class Packed(Read):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.lstm(packed)[1][0][-1])

    words = r"test_recurrent.py:\d+ gives a packed sequence .* leave that alone"
    with pytest.raises(CapabilityError, match=words) as caught:
        couple(Packed(), (torch.zeros(1, 5, 4), torch.tensor([5])))
    assert "\n" not in str(caught.value)

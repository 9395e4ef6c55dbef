"""Nothing that sartor does changes the object of a user: every function and class that takes a module is listed here.

They are found by their signatures, so that a new one must be put on one of both lists.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sartor
from sartor.core import trees
from sartor.core.copies import faithful, ready, undisturbed, unwrapped
from sartor.core.dispatch import running
from sartor.core.records import ExportSettings
from sartor.core.rng import global_seed
from sartor.core.trees import device_of
from sartor.data.teacher import Teacher
from sartor.exporting.agreement import parity
from sartor.exporting.onnx_file import export_onnx, trace_onnx
from sartor.exporting.prepared import prepare
from sartor.exporting.pt2_file import export_pt2, obstacle
from sartor.exporting.reach import check_export, written
from sartor.exporting.signature import Signature, input_names
from sartor.exporting.template import OnnxTemplate, sane_weights, with_sane_weights, with_weights
from sartor.jobs.fit.assemble import assemble
from sartor.networks import blank, counted, macs_params, original
from sartor.spaces.compression import Compression
from sartor.spaces.widths import Widths
from sartor.surgery.analysis.accounting import Accounts
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.recording import record
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.structure import arguments
from sartor.surgery.analysis.trace import retraced, trace
from sartor.surgery.analysis.work import Work, uses
from sartor.surgery.cutting.checked import analysed
from sartor.surgery.cutting.elimination import Elimination
from sartor.surgery.cutting.importance import scores
from sartor.surgery.cutting.ordering import Data, Order, best_order, by_elimination, eliminated, taken
from sartor.surgery.cutting.recurrent import layers
from sartor.surgery.cutting.slicing import Engine
from sartor.surgery.cutting.supernet import CutSupernet
from sartor.surgery.cutting.uncut import asked
from sartor.surgery.students.rewiring import Wiring
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.targets.openvino import OpenVino
from sartor.targets.torch_cpu import TorchCpu
from sartor.tasks.loaders import loaders
from sartor.timing.meter import Subject
from sartor.training.doubts import doubts
from sartor.training.evaluation import evaluate, score
from sartor.training.fitting import channels_apart, check_fits
from small import settings
from users import Net, belongings, untouched

X = torch.zeros(1, 3, 8, 8)


class Fussy(Net):
    """Counts and remembers in every forward, has hooks, frozen weights, and a part in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen, self.last, self.by_name = 0, list[Any](), None, dict[str, Any]()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("table", None)
        self.bn.eval()
        self.first.requires_grad_(False)
        self.head.register_forward_hook(lambda module, _args, out: module.__dict__.update(found=out))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x.shape)
        self.count.add_(1)
        y = self.maps(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, y.shape[2])
        self.last = self.by_name["maps"] = y + self.table
        return self.head(self.last.mean((2, 3)))


def task() -> Any:
    batches = [(torch.randn(4, 3, 8, 8), torch.arange(4))]
    return loaders(train=batches, valid=batches, test=batches, classes=5)


def run_twice(network: nn.Module) -> None:
    with undisturbed(network):
        network.train()(X.expand(2, -1, -1, -1))
        network.eval()(X).sum().backward()


def watched(network: nn.Module) -> None:
    with running(network, []), undisturbed(network):
        network.eval()(X)


def wired(network: nn.Module) -> Wiring:
    coupling = couple(network, X)
    return Wiring(Skeleton(coupling), network, ladders(coupling.groups, (0.5, 1.0), 1))


def shown() -> Data:
    return taken(task().train(torch.Generator()), 2, 2, lambda tree: tree, task())


def elimination(network: nn.Module) -> Elimination:
    return eliminated(Skeleton(couple(network, X)), network, shown())


def tried_orders(network: nn.Module) -> Order:
    coupling = couple(network, X)
    steps = ladders(coupling.groups, (0.5, 1.0), 1)
    return best_order(Skeleton(coupling), network, steps, (0,) * len(steps), shown(), elimination(network))


LEAVES: dict[str, Callable[[Any, Path], Any]] = {
    "core.copies:faithful": lambda n, _: faithful(n).train()(X.expand(2, -1, -1, -1)).sum().backward(),
    "core.copies:ready": lambda n, _: ready(n, X).train(),
    "core.copies:undisturbed": lambda n, _: run_twice(n),
    "core.copies:unwrapped": lambda n, _: unwrapped(n),
    "core.dispatch:running": lambda n, _: watched(n),
    "data.teacher:Teacher.__init__": lambda n, _: Teacher(n, torch.device("cpu"))(X),
    "exporting.agreement:parity": lambda n, _: parity(faithful(n).eval(), n, X),
    "exporting.onnx_file:export_onnx": lambda n, f: export_onnx(n, X, f / "n.onnx"),
    "exporting.onnx_file:trace_onnx": lambda n, _: trace_onnx(n, X),
    "exporting.pt2_file:export_pt2": lambda n, f: export_pt2(n, X, f / "n.pt2"),
    "exporting.prepared:prepare": lambda n, f: prepare(TorchCpu(), n, X, f, tolerance=1e-3),
    "exporting.pt2_file:obstacle": lambda n, _: obstacle(n, X),
    "exporting.reach:check_export": lambda n, _: check_export(n, X, ExportSettings(dynamic=("height", "width"))),
    "exporting.reach:written": lambda n, f: written(lambda s: TorchCpu().prepare(n, X, f, s), n, X),
    "exporting.signature:input_names": lambda n, _: input_names(n, X),
    "exporting.signature:Signature.of": lambda n, _: Signature.of(n, X),
    "exporting.template:OnnxTemplate.__init__": lambda n, _: OnnxTemplate(n, X, lambda data: data),
    "exporting.template:OnnxTemplate.__call__": lambda n, f: OnnxRuntime().template(n, X)(n),
    "exporting.template:with_weights": lambda n, _: with_weights(n, n.state_dict())(X),
    "exporting.template:with_sane_weights": lambda n, _: with_sane_weights(n, X)(X),
    "exporting.template:sane_weights": lambda n, _: sane_weights(n, X),
    "jobs.fit.assemble:assemble": lambda n, _: assemble(settings(), space=n, task=task()),
    "networks:original": lambda n, _: original(n).network(X),
    "networks:blank": lambda n, _: blank(n, X),
    "networks:counted": lambda n, _: counted(n, X),
    "networks:macs_params": lambda n, _: macs_params(n, X),
    "spaces.compression:Compression.__init__": lambda n, _: built(
        Compression(network=n, example=X, changes=("skips",))
    ),
    "spaces.widths:Widths.__init__": lambda n, _: built(Widths(network=n, example=X)),
    "surgery.analysis.accounting:Accounts.__init__": lambda n, _: Accounts(
        Skeleton(couple(n, X)), n, ladders(couple(n, X).groups, (0.5, 1.0), 1)
    ),
    "surgery.analysis.coupling:couple": lambda n, _: couple(n, X),
    "surgery.analysis.recording:record": lambda n, _: record(n, X),
    "surgery.analysis.structure:arguments": lambda n, _: arguments(n, X),
    "surgery.analysis.trace:trace": lambda n, _: trace(n, X),
    "surgery.analysis.trace:retraced": lambda n, _: retraced(n, X, ["second"], 3),
    "surgery.analysis.work:Work.__init__": lambda n, _: Work(Skeleton(couple(n, X, ["second"])), n),
    "surgery.analysis.work:uses": lambda n, _: uses(Skeleton(couple(n, X, ["second"])), n),
    "surgery.cutting.checked:analysed": lambda n, _: analysed(n, X),
    "surgery.cutting.importance:scores": lambda n, _: scores(couple(n, X), n, "l2"),
    "surgery.cutting.ordering:eliminated": lambda n, _: elimination(n),
    "surgery.cutting.ordering:by_elimination": lambda n, _: by_elimination(Skeleton(couple(n, X)), n, elimination(n)),
    "surgery.cutting.ordering:best_order": lambda n, _: tried_orders(n),
    "surgery.cutting.recurrent:layers": lambda n, _: layers(Skeleton(couple(n, X)), dict(n.named_modules())),
    "surgery.cutting.slicing:Engine.__init__": lambda n, _: Engine(Skeleton(couple(n, X)), n),
    "surgery.cutting.supernet:CutSupernet.__init__": lambda n, _: CutSupernet(
        Skeleton(couple(n, X)), n, ladders(couple(n, X).groups, (0.5, 1.0), 1), plain=True
    ).extract((0, 0)),
    "surgery.cutting.uncut:asked": lambda n, _: asked(n, X),
    "surgery.students.rewiring:Wiring.__init__": lambda n, _: wired(n),
    "targets.onnxruntime:OnnxRuntime.prepare": lambda n, f: OnnxRuntime().prepare(n, X, f),
    "targets.onnxruntime:OnnxRuntime.template": lambda n, _: OnnxRuntime().template(n, X),
    "targets.openvino:OpenVino.prepare": lambda n, f: OpenVino().prepare(n, X, f),
    "targets.openvino:OpenVino.template": lambda n, _: OpenVino().template(n, X),
    "targets.torch_cpu:TorchCpu.prepare": lambda n, f: TorchCpu().prepare(n, X, f),
    "targets.torch_cpu:TorchCpu.template": lambda n, _: TorchCpu().template(n, X),
    "timing.meter:Subject.prepared": lambda n, f: Subject.prepared(TorchCpu(), n, X, f),
    "training.doubts:doubts": lambda n, _: doubts(n, task(), 0.5),
    "training.fitting:channels_apart": lambda n, _: channels_apart(task(), n),
    "training.fitting:check_fits": lambda n, _: check_fits(task(), n, taught=True),
    "core.trees:device_of": lambda n, _: device_of(n),
    "training.evaluation:evaluate": lambda n, _: evaluate(n, task().valid(), task()),
    "training.evaluation:score": lambda n, _: score(n, task().valid(), task()),
}

OWN = {
    "core.abilities:": "contracts, tried on the plug-ins",
    "core.contracts:": "contracts, tried on the plug-ins",
    "core.copies:fold": "in place, which is what it is for",
    "core.copies:load": "in place, which is what it is for",
    "core.counting:count": "runs it, for `networks.counted`",
    "core.trees:call": "runs it, which is what it is for",
    "exporting.tracing:": "what exporters do inside `evaluating`",
    "exporting.weights_file:": "in place, which is what it is for",
    "jobs.fit.api:Fit.__init__": "a result",
    "jobs.fit.api:fit": "hands it to `assemble`, and from there on works with what the space builds",
    "jobs.fit.train:train_network": "its teacher is what a space has built",
    "spaces.widths:Widths.reconstruct": "in place, in what it has built",
    "strategies.esnac.kernels:": "a network of its own",
    "supernet.": "networks that a space has built",
    "surgery.analysis.opaque:": "inside a trace, on a copy",
    "surgery.cutting.importance:reorder": "in place, which is what it is for",
    "surgery.cutting.supernet:CutSupernet.reconstruct": "in place, in what it has built",
    "surgery.cutting.uncut:check_uncut": "of what a space has built to be run",
    "surgery.students.tally:Tally.__init__": "reads weights of what a space holds",
    "surrogates.embedding:": "networks of its own",
    "targets.torch_cuda:": "needs a GPU; copies as the others do",
    "training.drop_path:": "for the training of it, with which it shares its weights",
    "training.engine:": "trains it, which is what it is for",
    "training.evaluation:mode": "for a block",
    "training.loop:fit": "trains it, which is what it is for",
    "training.recipe:": "trains it, which is what it is for",
}
"""Those that own the module that they are given, and why."""


def built(space: Any) -> None:
    """Everything that a space does."""
    for arch in (space.reference, (0,) * len(space.choices)):
        space.build(arch).train()(X.expand(2, -1, -1, -1)).sum().backward()
    if hasattr(space, "supernet") and isinstance(space, Widths):
        space.supernet()(X, [torch.eye(len(c.options))[0] for c in space.choices])


def takes_a_module() -> Iterator[str]:
    for info in pkgutil.walk_packages(sartor.__path__, "sartor."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            module = importlib.import_module(info.name)
            for name, thing in list(vars(module).items()):
                if not name.startswith("_") and getattr(thing, "__module__", None) == info.name:
                    for path, function in functions(name, thing):
                        given = {
                            k: str(v) for k, v in getattr(function, "__annotations__", {}).items() if k != "return"
                        }
                        if any(is_module(words) for words in given.values()):
                            yield f"{info.name.removeprefix('sartor.')}:{path}"


def functions(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isfunction(thing):
        yield name, thing
    elif inspect.isclass(thing):
        for key, value in vars(thing).items():
            inner = getattr(value, "__func__", value)
            if inspect.isfunction(inner) and (not key.startswith("_") or key in ("__init__", "__call__")):
                yield f"{name}.{key}", inner


def is_module(words: str) -> bool:
    return "nn.Module" in words and "Callable" not in words and "type[" not in words


def test_every_function_that_takes_a_module_is_listed():
    found = set(takes_a_module())
    assert len(found) >= 80
    unlisted = {name for name in found if name not in LEAVES and not any(name.startswith(own) for own in OWN)}
    assert not unlisted, "say whether they leave the user's module as it is (LEAVES), or why it is theirs (OWN)"
    assert not LEAVES.keys() - found


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "after a step"])
def test_the_module_stays_as_it_was(name, fresh, tmp_path):
    with global_seed(0):
        network = Fussy().train()
        network.bn.eval()
        if not fresh:
            network(torch.randn(4, 3, 8, 8)).sum().backward()
    before, keys = belongings(network), {m: list(vars(m)) for m in network.modules()}
    LEAVES[name](network, tmp_path)
    assert untouched(before, belongings(network))
    assert keys == {m: list(vars(m)) for m in network.modules()}
    assert trees.leaves(network(X.expand(2, -1, -1, -1)))


def test_the_test_sees_changes():
    network = Fussy()
    before = belongings(network)
    assert untouched(before, belongings(network))
    for change in (
        lambda n: n(X),
        lambda n: n.train(not n.training),
        lambda n: n.head.weight.data.mul_(2),
        lambda n: n.second.register_forward_hook(print),
        lambda n: setattr(n, "more", 1),
    ):
        changed = copy.deepcopy(network)
        before = belongings(changed)
        change(changed)
        assert not untouched(before, belongings(changed))

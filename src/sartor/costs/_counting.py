"""Numbers of a network, from the layers that its space lists or counted on the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sartor import networks
from sartor.core import trees
from sartor.core.abilities import Accounted, Layered
from sartor.core.contracts import Space
from sartor.core.counting import Count
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, LayerKey
from sartor.core.rng import global_seed
from sartor.core.tables import Tables
from sartor.core.trees import Inputs
from sartor.networks import Shapes, blank

T = TypeVar("T")
Values = Mapping[str, Callable[[LayerKey], float]]
"""Kind of layer -> the number of one such layer."""

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Use(NamedTuple):
    """One use of a convolution or linear layer: the module, and the sizes of what enters and leaves it."""

    module: nn.Module
    before: torch.Size
    after: torch.Size


def covers(space: Space, values: Values) -> bool:
    """Whether the space lists its layers, all of kinds that `values` knows."""
    return isinstance(space, Layered) and all(layer.kind in values for layer in space.layers())


def tabulate(space: Space, values: Values, metric: str) -> Tables | None:
    """`metric` as the space accounts for it, or the sum of `values` over its layers; None if neither covers it."""
    if isinstance(space, Accounted):
        return space.account(metric)
    if not isinstance(space, Layered) or not covers(space, values):
        return None
    return Tables.of_layers(space.choices, space.layers(), lambda key: values[key.kind](key))


class Counted:
    """A number that is counted on the network of an arch; each arch is built once."""

    def __init__(self, space: Space, count: Callable[[nn.Module], float]) -> None:
        self._space, self._count = space, count
        self._known: dict[Arch, float] = {}

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        """The numbers of `n` archs, shape `(n,)`, float64."""
        return torch.tensor([self._of(self._space.canonical(tuple(a))) for a in archs], dtype=torch.float64)

    def _of(self, arch: Arch) -> float:
        if arch not in self._known:
            with global_seed(0):  # building draws initial weights; a cost must not disturb the caller's randomness
                self._known[arch] = _built(self._space, arch, self._count)
        return self._known[arch]


class Tallied:
    """A number that the space tells, times `factor`."""

    def __init__(self, space: Accounted, metric: str, factor: float = 1.0) -> None:
        self._space, self._metric, self._factor = space, metric, factor

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        """The numbers of `n` archs, shape `(n,)`, float64."""
        found = self._space.tally(self._metric, archs)
        assert found is not None, f"{type(self._space).__name__} does not tell {self._metric}"
        return found * self._factor


def counted(space: Space, metric: str, count: Callable[[nn.Module], float], factor: float = 1.0) -> Tallied | Counted:
    """`metric` as the space tells it, times `factor`; else counted on networks, one by one."""
    if isinstance(space, Accounted) and space.tally(metric, []) is not None:
        return Tallied(space, metric, factor)
    return Counted(space, count)


def reference_count(space: Space, given: Shapes | None, by: object) -> Count | None:
    """What is counted, and what not, of the reference network; None if nobody says the shape of an input."""
    if given is None and space.example is None and space.input_shape is None:
        return None

    def measured(module: nn.Module) -> Count:
        return networks.counted(module, one_example(space, given, module, by))

    with global_seed(0):
        return _built(space, space.reference, measured)


def _built(space: Space, arch: Arch, measure: Callable[[nn.Module], T]) -> T:
    """`measure` of a network, without weights where that is enough."""
    try:
        with torch.device("meta"):
            module = space.build(arch)
        return measure(module)
    except (NotImplementedError, RuntimeError):  # the network needs real tensors
        return measure(space.build(arch))


def one_example(space: Space, given: Shapes | None, module: nn.Module, by: object) -> Inputs:
    """Inputs of one example for a network of the space: shaped as given, or as the space says."""
    if given is not None:
        return blank(module, given)
    if space.example is not None:
        return blank(module, space.example)
    if space.input_shape is not None:
        return blank(module, space.input_shape)
    raise ConfigError(
        f"{type(by).__name__} needs the shape of an input, which {type(space).__name__} does not say; "
        "give input_shape, for example [3, 224, 224]"
    )


def observe(module: nn.Module, example: Inputs) -> list[Use]:
    """Every use of a convolution or linear layer in one forward pass of one example, in order."""
    uses: list[Use] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        uses.append(Use(layer, inputs[0].shape, output.shape))

    layers = [m for m in module.modules() if isinstance(m, (*_CONVS, nn.Linear))]
    hooks = [m.register_forward_hook(note) for m in layers]
    training = module.training
    try:
        with torch.no_grad():
            trees.call(module.eval(), example)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return uses


def told(space: Space, metric: str) -> Callable[[Sequence[Arch]], Tensor]:
    """What only the space itself can count, as it tells it.

    Raises:
        ConfigError: It does not.
    """
    if not isinstance(space, Accounted) or space.tally(metric, []) is None:
        raise ConfigError(f"{type(space).__name__} does not tell {metric}; take a space of graphs: blocks")

    def cost(archs: Sequence[Arch]) -> Tensor:
        found = space.tally(metric, archs)
        assert found is not None, f"{type(space).__name__} tells {metric} of no network only"
        return found

    return cost

"""A choice between modules: one of them runs, a weighted sum of several, or another one per example.

How binary gates get gradients at the memory of one path: Cai, Zhu and Han, "ProxylessNAS" (ICLR 2019), section 3.2.
Deviation: running statistics of norms do not see the paths that are run for the gradient of their gates only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from sartor.core.errors import ConfigError
from sartor.supernet.gates import GLANCE


class Mixed(nn.Module):
    """The sum of the outputs of its options, each times its gate.

    An option whose gate is exactly zero is not run. A gate of one scales nothing, and if it is the only one and needs
    no gradient, there is nothing around its option at all. An option whose gate is `GLANCE` is only run if the gates
    need a gradient, in the backward pass and without a graph: what is kept for it is the input, which is kept anyway.

    Args:
        options: Modules from inputs of one shape to outputs of one shape. None is nothing: zeros like the input, or the
            input itself with `shortcut`. State dicts name option `j` `options.j`.
        shortcut: Whether None passes its input on. The other options add their own shortcuts.
    """

    def __init__(self, options: Sequence[nn.Module | None], *, shortcut: bool = False) -> None:
        super().__init__()
        if not options:
            raise ConfigError("a choice between modules needs at least one option, and has none")
        self.options = nn.ModuleDict({str(j): o for j, o in enumerate(options) if o is not None})
        self.count, self.shortcut = len(options), shortcut

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Run.

        Args:
            x: `(batch, ...)`.
            gate: `(k,)`, or `(batch, k)` for one row per example: an option then sees its own examples only.

        Raises:
            ConfigError: The gates are not one per option, or all of an example are zero.
        """
        if gate.shape[-1] != self.count:
            raise ConfigError(f"a gate needs one value per option: got {tuple(gate.shape)} for {self.count} options")
        gate = gate.reshape(-1, self.count)
        table = gate.detach().cpu()
        watched = gate.requires_grad and torch.is_grad_enabled()
        only = None if watched else _only(table)
        if only is not None:
            return self.run(only, x)
        y = self._sum(x, gate, table, watched)
        if watched and bool((table == GLANCE).any()):
            y = cast(Tensor, _Glance.apply(y, gate, x, self.run_aside, table == GLANCE))
        return y

    def run(self, j: int, x: Tensor) -> Tensor:
        """The output of option `j` for `x`, `(batch, ...)`."""
        key = str(j)
        if key in self.options:
            return cast(Tensor, self.options[key](x))
        return x if self.shortcut else torch.zeros_like(x)

    def run_aside(self, j: int, x: Tensor) -> Tensor:
        """The same, but buffers (running statistics) stay as they are."""
        key = str(j)
        if key not in self.options:
            return self.run(j, x)
        option = self.options[key]
        return cast(Tensor, functional_call(option, {name: b.clone() for name, b in option.named_buffers()}, (x,)))

    def _sum(self, x: Tensor, gate: Tensor, table: Tensor, watched: bool) -> Tensor:
        live = (table != 0) & (table != GLANCE)
        if not bool(live.any(1).all()):
            raise ConfigError("a gate needs at least one option other than zero; all are zero")
        some = live.any(0).nonzero().flatten().tolist()
        terms = list[tuple[Tensor | None, Tensor]]()
        for j in [j for j in some if self.shortcut or str(j) in self.options] or some:  # zeros add nothing
            rows = None if bool(live[:, j].all()) else live[:, j].nonzero().flatten().to(x.device)
            own, factor = (x, gate[:, j]) if rows is None else (x[rows], gate[rows.to(gate.device), j])
            hard = bool((table[live[:, j], j] == 1).all())
            terms.append((rows, _scaled(self.run(j, own), factor, hard, watched)))
        return _joined(terms, len(x))


def glanced(active: int, options: int, seen: Collection[int]) -> Tensor:
    """A gate `(options,)` that runs option `active`, and needs a gradient for it and for all options in `seen`.

    The gradient of the other gates is zero. With all options in `seen` it is the exact one of all gates.
    """
    if not 0 <= active < options or any(not 0 <= j < options for j in seen):
        raise ConfigError(f"options are numbered from 0 to {options - 1}; got {active} and {sorted(seen)}")
    gate = torch.zeros(options)
    gate[list(seen)] = GLANCE
    gate[active] = 1
    return gate.requires_grad_()


def fix_norms(supernet: nn.Module) -> None:
    """Let batch norms in options of a `Mixed` neither scale nor shift, for good: scales cannot stand in for gates then.

    Liu et al., "DARTS" (ICLR 2019), section 3.1.1. Weights keep their names, with values of 1 and 0.
    """
    for mixed in [m for m in supernet.modules() if isinstance(m, Mixed)]:
        for norm in [m for m in mixed.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine]:
            nn.init.ones_(norm.weight.requires_grad_(False))
            nn.init.zeros_(norm.bias.requires_grad_(False))


def inherit_path(plain: nn.Module, mixed: nn.Module, picks: Sequence[int]) -> nn.Module:
    """`plain` with copies of the weights of one path through `mixed`.

    Args:
        plain: The network to fill, in which the picked option stands where `mixed` has a `Mixed`; it may be on the meta
            device, its values are not read.
        mixed: Where the weights come from; `plain` takes its device and its mode (training or evaluation).
        picks: The option of every `Mixed`, in the order of `mixed.modules()`.

    Raises:
        ConfigError: `mixed` lacks a weight of `plain`, or has one of another shape.
    """
    paths = [name for name, module in mixed.named_modules() if isinstance(module, Mixed)]
    chosen = dict(zip(paths, picks, strict=True))
    state = {_plain_name(key, chosen): value for key, value in mixed.state_dict().items()}
    for name, target in plain.state_dict().items():
        if name not in state or state[name].shape != target.shape:
            raise ConfigError(
                f"cannot inherit {name!r} of shape {tuple(target.shape)} from {type(mixed).__name__}; take a part of it"
            )
    kept = {name: state[name].clone(memory_format=torch.contiguous_format) for name in plain.state_dict()}
    plain.load_state_dict(kept, strict=True, assign=True)
    return plain.train(mixed.training)


def _plain_name(key: str, chosen: Mapping[str, int]) -> str | None:
    """What a weight is called where only the chosen options are there; None if it is not there."""
    for path in sorted(chosen, key=len, reverse=True):  # choices within options before those around them
        prefix = f"{path}." if path else ""
        if key.startswith(f"{prefix}options."):
            j, rest = key.removeprefix(f"{prefix}options.").split(".", 1)
            if int(j) != chosen[path]:
                return None
            key = prefix + rest
    return key


def _only(table: Tensor) -> int | None:
    """The option that all examples run alone and unscaled, if there is one."""
    if len(table) > 1:
        if not bool((table == table[0]).all()):
            return None
        table = table[:1]
    values = [0.0 if v == GLANCE else v for v in table[0].tolist()]
    return values.index(1.0) if values.count(0.0) == len(values) - 1 and 1.0 in values else None


def _scaled(y: Tensor, factor: Tensor, hard: bool, watched: bool) -> Tensor:
    """`y`, `(rows, ...)`, times `factor`, `(rows,)` or `(1,)`; `hard` says that all factors are one."""
    if hard:
        return cast(Tensor, _Unit.apply(y, factor)) if watched else y
    return y * factor.to(y).reshape(-1, *(1,) * (y.dim() - 1))


def _joined(terms: Sequence[tuple[Tensor | None, Tensor]], batch: int) -> Tensor:
    """The sum of terms `(rows, ...)`, each of the rows of its index, or of all if that is None."""
    total = terms[0][1]
    if all(rows is None for rows, _ in terms):
        for _, term in terms[1:]:
            total = total + term
        return total
    dtype = total.dtype
    for _, term in terms[1:]:
        dtype = torch.promote_types(dtype, term.dtype)  # under autocast options differ
    total = total.new_zeros(batch, *total.shape[1:], dtype=dtype)
    for rows, term in terms:
        total = total + term if rows is None else total.index_add(0, rows, term.to(dtype))
    return total


def _inner(one: Tensor, two: Tensor, gate: Tensor) -> Tensor:
    """Inner products like `gate`, `(rows,)` or `(1,)`: per example or over all of them."""
    product = one.to(torch.promote_types(one.dtype, gate.dtype)) * two
    return (product.flatten(1).sum(1) if len(gate) > 1 else product.sum()[None]).to(gate)


class _Unit(torch.autograd.Function):
    """Times a gate that is one: the output is the input's memory, and what is kept for the gate is that too."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(y, gate)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        y, gate = ctx.saved_tensors
        return grad, _inner(grad, y, gate)


class _Glance(torch.autograd.Function):
    """The output as it is; in the backward pass, what it would have changed with the gates of further options."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, gate: Tensor, x: Tensor, run: Callable[[int, Tensor], Tensor], seen: Tensor
    ) -> Tensor:
        ctx.save_for_backward(gate, x)
        ctx.run, ctx.seen, ctx.autocast = run, seen, _autocast(x.device.type)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, x = ctx.saved_tensors
        found = torch.zeros_like(gate)
        for j in ctx.seen.any(0).nonzero().flatten().tolist():
            rows = slice(None) if ctx.seen[:, j].all() else ctx.seen[:, j].nonzero().flatten()
            # Rows of gates, of which there may be one only, and the examples that they are of.
            examples = rows if len(gate) > 1 else slice(None)
            with torch.no_grad(), ctx.autocast():
                y = ctx.run(j, x[examples])
            found[rows, j] = _inner(grad[examples], y, gate[rows, j])
        return grad, found, None, None, None


def _autocast(device: str) -> Callable[[], AbstractContextManager[None]]:
    """The autocast of now, for later: the backward pass runs outside of it."""
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return lambda: cast(AbstractContextManager[None], torch.autocast(device, dtype, enabled))

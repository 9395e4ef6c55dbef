"""What a gate means for a width choice: how many channels run, and by what each is multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sartor.core.contracts import Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch

GLANCE = torch.finfo(torch.float32).tiny
"""A gate for an option that only the gradient of its gate is wanted of.

The option adds nothing to the output (less than any rounding) and keeps nothing in memory for the backward pass, where
it is run to find how the loss would change with its gate (ProxylessNAS, section 3.2.1).
"""


@dataclass(frozen=True)
class Cut:
    """The channels of one feature map that run.

    Attributes:
        width: The first `width` channels run; the others are not computed.
        mask: None, or what the channels are multiplied by, `(1, width)` or `(batch, width)`.
    """

    width: int
    mask: Tensor | None = None

    @property
    def per_example(self) -> bool:
        """Whether some channel may be active in one example and not in another."""
        return self.mask is not None and len(self.mask) > 1

    def scale(self, x: Tensor) -> Tensor:
        """`x`, `(batch, width, ...)`, times the mask."""
        return x if self.mask is None else x * _spread(self.mask.to(x), x)

    def hide(self, x: Tensor) -> Tensor:
        """`x`, `(batch, width, ...)`, with zeros where the mask is zero; soft masks do not scale it (again)."""
        if self.mask is None or not self.per_example:
            return x
        return x * _spread((self.mask != 0).to(x), x)


def _spread(mask: Tensor, x: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *(1,) * (x.dim() - 2))


def cut(gate: Tensor, widths: Sequence[int]) -> Cut:
    """The cut of a feature map whose number of channels is `widths[j]` under option `j`.

    A gate that is hard and shared by the batch, and that needs no gradient, gives a plain width. Otherwise channel `c`
    is multiplied by the sum of the gates of all options with more than `c` channels, and only channels of the widest
    option with a gate other than zero run.

    Args:
        gate: `(k,)`, or `(batch, k)` for one row per example.
        widths: `k` numbers of channels.
    """
    if gate.shape[-1] != len(widths):
        raise ConfigError(f"a gate needs one value per option: got {tuple(gate.shape)} for {len(widths)} options")
    rows = gate.reshape(-1, len(widths))
    active = (rows.detach() != 0).any(0).nonzero().flatten().tolist()
    if not active:
        raise ConfigError("a gate needs at least one option other than zero; all are zero")
    width = max(widths[j] for j in active)
    if len(active) == 1 and not gate.requires_grad and bool((rows[:, active[0]] == 1).all()):
        return Cut(width)
    chosen = torch.tensor([widths[j] for j in active])
    inside = chosen[:, None] > torch.arange(width)  # (active, width)
    return Cut(width, rows[:, active] @ inside.to(rows))


def rows(space: Space, archs: Sequence[Arch]) -> list[Tensor]:
    """Gates that run `archs[n]` on example `n` of a batch: per choice a one-hot tensor of shape `(batch, k_i)`."""
    index = torch.tensor([list(a) for a in archs], dtype=torch.long).reshape(len(archs), len(space.choices))
    return [torch.eye(len(c.options))[index[:, i]] for i, c in enumerate(space.choices)]


def shared(gates: Sequence[Tensor]) -> Arch | None:
    """The one arch that the gates run on the whole batch, or None if they are soft or differ between examples."""
    arch = []
    for gate in gates:
        table = gate.detach().reshape(-1, gate.shape[-1])
        best = table[0].argmax()
        if not torch.equal(table, torch.zeros_like(table).index_fill_(1, best, 1.0)):
            return None
        arch.append(int(best))
    return tuple(arch)

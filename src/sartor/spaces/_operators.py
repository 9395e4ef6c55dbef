"""Operators of a space, and how to make each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from sartor.core.errors import ConfigError
from sartor.core.records import Operator

Make: TypeAlias = Callable[[], nn.Module]


class Catalogue(dict[str, Make]):
    """Who makes which operator, by its key; equal keys are one operator."""

    def add(self, key: str, channels: int, size: int, make: Make) -> Operator:
        """The operator `key` on inputs `(channels, size, size)`; the first one who makes it does."""
        self.setdefault(key, make)
        return Operator(key, (channels, size, size))

    def module(self, operator: Operator) -> nn.Module:
        """A fresh one.

        Raises:
            ConfigError: There is no such operator.
        """
        if operator.key not in self:
            raise ConfigError(f"no network of this space runs {operator.key!r}; take one of operators()")
        return self[operator.key]()

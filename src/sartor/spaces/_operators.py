"""Operators of a space, and how to make each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import fx, nn

from sartor.core.errors import ConfigError
from sartor.core.records import Operator, Operators

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


class Catalogued(ABC):
    """A space that offers `Operated`, by a catalogue."""

    @property
    @abstractmethod
    def _operators(self) -> tuple[Operators, Catalogue]:
        """What networks run, and who makes it."""

    def operators(self) -> Operators:
        return self._operators[0]

    def operator(self, operator: Operator) -> nn.Module:
        return fx.symbolic_trace(self._operators[1].module(operator))

"""Work for other processes: what they are told, what they answer, and what each kind of workers does.

Nothing is pickled. A worker is told the name of a function that makes the work, and plain data; it imports the one, and
answers with plain data.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, ClassVar, TypeAlias

from sartor.core.errors import ConfigError, StateError

Job: TypeAlias = Mapping[str, Any]
"""Plain data: what one call of the work is given."""
Work: TypeAlias = Callable[[Job], Any]
"""Does a job and gives plain data."""


@dataclass(frozen=True)
class Order:
    """What workers are to do.

    Attributes:
        make: `package.module:function`; called with `arguments` in the worker, it gives the `Work`.
        arguments: Plain data.
        sees: A file and what it must say: that the worker sees the folder that this process sees. Empty: no folder.
    """

    make: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sees: tuple[str, str] = ("", "")

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Order:
        """What `as_dict` made."""
        return cls(told["make"], told["arguments"], tuple(told["sees"]))

    def work(self) -> Work:
        """Make the work, in this process."""
        module, _, function = self.make.partition(":")
        made: Work = getattr(importlib.import_module(module), function)(self.arguments)
        return made


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Attributes:
        key: Of the job.
        value: What the work gave.
        error: Kind and message of the exception that the work raised.
        lost: How the process ended that was at it; "" if it did not.
        late: Whether it was stopped at its time limit.
        ran: Where and how: host, process, cores, threads, seconds.
    """

    key: int
    value: Any = None
    error: tuple[str, str] | None = None
    lost: str = ""
    late: bool = False
    ran: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, key: int, said: Mapping[str, Any]) -> Answer:
        """From what a process says: the fields by their names, as JSON has them."""
        error = said.get("error")
        return cls(**{**said, "key": key, "error": error and (error[0], error[1])})


class Workers(ABC):
    """Do jobs, several at a time. Nothing is started before `open`, so that mistakes in settings show at once.

    Args:
        order: What they do; None only checks the settings.
        count: How many jobs at a time.
        cpus: Cores, and threads, of a job.
        gpus: GPUs of a job.
        memory_gb: Gigabytes of memory that a job may take; None for no limit.
        trial_seconds: Time of a job; None for no limit.

    Raises:
        ConfigError: A setting is out of range, or a job asks for more than there is.
    """

    elsewhere: ClassVar[bool] = True
    """Whether jobs are done by other processes than this one."""

    def __init__(
        self,
        order: Order | None,
        *,
        count: int = 1,
        cpus: int = 1,
        gpus: int = 0,
        memory_gb: float | None = None,
        trial_seconds: float | None = None,
    ) -> None:
        for name, value, least in (("count", count, 0), ("cpus", cpus, 1), ("gpus", gpus, 0)):
            if value < least:
                raise ConfigError(f"workers.{name} must be at least {least}, got {value}; give a larger number")
        for name, limit in (("memory_gb", memory_gb), ("trial_seconds", trial_seconds)):
            if limit is not None and not 0 < limit < math.inf:
                raise ConfigError(f"workers.{name} must be positive, got {limit}; leave it out for no limit")
        self._order, self.count, self.cpus, self.gpus = order, count, cpus, gpus
        self.memory_gb, self.trial_seconds = memory_gb, trial_seconds
        self.check()

    @property
    def used(self) -> bool:
        """Whether jobs go to other processes: where there are to be 0 of them, none does."""
        return self.elsewhere and self.count > 0

    def check(self) -> None:  # noqa: B027 - this process has what it has
        """Refuse what can be known to fail before anything is started; called once.

        Raises:
            SartorError: A job asks for more than there is, or a package is missing.
        """

    @property
    def order(self) -> Order:
        """What they do."""
        assert self._order is not None, "these were made to check their settings"
        return self._order

    @abstractmethod
    def open(self) -> None:
        """Start whatever does the jobs.

        Raises:
            SartorError: It cannot be started.
        """

    @abstractmethod
    def start(self, key: int, job: Job) -> None:
        """Begin a job; at most `count` are under way."""

    @abstractmethod
    def wait(self) -> list[Answer]:
        """The jobs that have ended, at least one.

        Raises:
            SartorError: A worker cannot make the work, or none can be started.
        """

    @abstractmethod
    def close(self) -> None:
        """End all, jobs under way included."""


def versions() -> dict[str, str]:
    """What must be the same in every worker, or results would depend on who made them."""
    return {"sartor": importlib.import_module("sartor").__version__, "torch": metadata.version("torch")}


def check_versions(mine: Mapping[str, str], theirs: Mapping[str, str], host: str) -> None:
    """Refuse a worker that has other versions.

    Raises:
        ConfigError: Names both.
    """
    if dict(mine) != dict(theirs):
        words = [", ".join(f"{name} {version}" for name, version in side.items()) for side in (theirs, mine)]
        raise ConfigError(
            f"a worker on {host} has {words[0]}, this process has {words[1]}: results would depend on who made them; "
            "install the same versions"
        )


def check_machine(cpus: int, gpus: int, memory_gb: float | None, there: Mapping[str, float]) -> None:
    """Refuse jobs that ask for more than there is.

    Args:
        cpus: Of a job.
        gpus: Of a job.
        memory_gb: Of a job.
        there: `cpus`, `gpus` and `memory_gb` of the largest machine.

    Raises:
        ConfigError: Names what is asked for and what is there.
    """
    for name, wanted in (("cpus", cpus), ("gpus", gpus), ("memory_gb", memory_gb or 0)):
        if wanted > there[name]:
            raise ConfigError(
                f"a trial asks for workers.{name} = {wanted:g}, and no machine has more than {there[name]:g}; ask for "
                "less"
            )


def this_machine() -> dict[str, float]:
    """`cpus`, `gpus` and `memory_gb` of this machine, as `check_machine` takes them."""
    import torch  # noqa: PLC0415 - only this asks for GPUs

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpus": len(usable()), "gpus": torch.cuda.device_count(), "memory_gb": pages / 1e9}


def usable() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_of(slot: int, cpus: int) -> list[int]:
    """The cores of a worker: one after another, shared where there are more workers than cores."""
    cores = usable()
    return sorted({cores[(slot * cpus + i) % len(cores)] for i in range(cpus)})


def check_sees(sees: tuple[str, str]) -> None:
    """Refuse to work where the run folder is not seen.

    Raises:
        StateError: The file is not there, or says something else.
    """
    path, text = sees
    if not path:
        return
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a name as another machine gave it
            found = file.read()
    except OSError as error:
        raise StateError(
            f"a worker on {platform.node()} does not see {path} ({error}); name a run folder that all workers see"
        ) from error
    if found != text:
        raise StateError(
            f"{path} is another file on {platform.node()} than where the search is; name a run folder that all workers "
            "see"
        )

"""Every exception sartor raises on purpose; each also subclasses the builtin a caller would expect."""


class SartorError(Exception):
    """Base class: one `except` catches everything deliberate; the CLI prints it as one line and exits with 2."""


class ConfigError(SartorError, ValueError):
    """A config names something that does not exist, has the wrong type or contradicts itself."""


class CapabilityError(SartorError, TypeError):
    """A part needs an ability that another part lacks."""


class MissingExtraError(SartorError, ImportError):
    """An optional dependency is needed and not installed."""


class DataError(SartorError, ValueError):
    """Data is missing, empty or does not fit the network."""


class TargetError(SartorError, RuntimeError):
    """A target cannot run a network, or runs it with other results than PyTorch."""


class BudgetError(SartorError, ValueError):
    """A budget that no network of the space meets, or that needs no search."""


class BudgetSpentError(SartorError, RuntimeError):
    """Raised by the lab inside a step; the runner treats it as a normal end."""


class DivergedError(SartorError, ArithmeticError):
    """Training produced a loss or metric that is not finite."""


class SingularError(SartorError, ArithmeticError):
    """A covariance that no nugget gives a Cholesky factor; a search then goes on without its model."""


class TrialTimeoutError(SartorError, TimeoutError):
    """One trial ran past its time limit."""


class StateError(SartorError, ValueError):
    """A checkpoint or a run folder does not fit what it is loaded into."""


class LeakError(SartorError, RuntimeError):
    """The search asked for the test split."""

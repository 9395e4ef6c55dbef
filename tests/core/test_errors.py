from __future__ import annotations

import inspect

import pytest

from sartor.core import errors
from sartor.core.errors import SartorError

ERRORS = [e for _, e in inspect.getmembers(errors, inspect.isclass) if e.__module__ == errors.__name__]


def test_there_are_errors() -> None:
    assert len(ERRORS) >= 10


@pytest.mark.parametrize("error", ERRORS)
def test_one_except_catches_every_error_and_so_does_the_builtin(error: type[Exception]) -> None:
    assert issubclass(error, SartorError)
    assert error.__doc__
    assert error.__name__.endswith("Error")
    if error is not SartorError:
        sartor, builtin = error.__bases__
        assert sartor is SartorError
        assert builtin.__module__ == "builtins"


@pytest.mark.parametrize("error", ERRORS)
def test_the_message_is_what_is_shown(error: type[Exception]) -> None:
    assert str(error("say so")) == "say so"

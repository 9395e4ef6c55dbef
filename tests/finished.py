"""One finished fit with a latency budget on ONNX Runtime, shared by all tests of a session."""

from __future__ import annotations

import pytest

from sartor.jobs.fit.api import fit_config
from small import latency_settings


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The `Fit`; tests that change files copy its folder."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return fit_config(latency_settings(), folder, command="sartor fit small.toml run")

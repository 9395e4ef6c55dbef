"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadlines: a test must not fail because the machine is busy.
settings.register_profile("sartor", deadline=None, max_examples=50)
settings.load_profile("sartor")

pytest_plugins = ["finished"]

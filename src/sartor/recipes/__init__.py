"""Packaged recipes: configs that `sartor fit NAME` runs as they are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def names() -> list[str]:
    """The packaged recipes."""
    return sorted(f.name.removesuffix(".toml") for f in resources.files(__name__).iterdir() if f.name.endswith(".toml"))


def path(name: str) -> Path:
    """The file of a packaged recipe."""
    return Path(str(resources.files(__name__).joinpath(f"{name}.toml")))


def find(recipe: str | Path) -> Path:
    """The file that a user means: a packaged recipe by its name, else a path."""
    return path(str(recipe)) if str(recipe) in names() else Path(recipe)

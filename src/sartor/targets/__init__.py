"""Targets (where a network will run), one per module."""

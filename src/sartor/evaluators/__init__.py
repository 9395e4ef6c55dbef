"""Evaluators (how good is an architecture), one per module."""

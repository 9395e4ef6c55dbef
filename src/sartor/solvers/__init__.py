"""Exact optimisation over tables of costs."""

"""Strategies side by side on one real problem, and finished runs side by side."""

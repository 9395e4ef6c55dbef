"""Contracts, records, tables, state, randomness, plug-in discovery, errors."""

"""The loop around a strategy: lab, journal, checkpoints, ledger."""

"""Tasks (data, loss, metrics), one per module."""

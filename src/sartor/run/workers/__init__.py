"""Who evaluates trials: this process, processes of this machine, or a Ray cluster; one kind per module."""

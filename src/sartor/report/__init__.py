"""Pure functions of what a run folder holds: no torch, no search."""

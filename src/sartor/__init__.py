"""Fit a neural network to a budget: measured latency, MACs, parameters or memory."""

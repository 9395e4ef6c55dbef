"""Latency of whole networks as a sum over their layers: which to measure, how to fit, how to keep the samples."""

"""The one clock: networks timed in interleaved rounds, ratios to a reference, intervals, a verdict; peak memory."""

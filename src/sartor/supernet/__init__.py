"""Weight-sharing networks: gates, sliced layers, calibration."""

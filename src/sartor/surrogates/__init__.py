"""Models that stand in for an evaluation: Gaussian processes, embeddings of networks, learning curves, densities."""

"""A network with some of its channels: run in slices or under masks, built as a smaller module, reconstructed."""

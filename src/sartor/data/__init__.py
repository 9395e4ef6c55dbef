"""What tasks are made of: images in memory, losses, distances, metrics."""

"""Taking an existing network apart: which channels belong together, and smaller networks with the same weights."""

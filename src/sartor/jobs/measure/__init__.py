"""What networks take on a target, networks to be timed elsewhere, and the operators of a space."""

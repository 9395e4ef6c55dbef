"""How networks are drawn: within a budget, from a policy, from densities, in brackets of rising fidelity."""

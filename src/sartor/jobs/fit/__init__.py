"""The main job: from a space, data, a target and a budget to a trained, verified, exported network."""

"""Distributions over networks that rewards move: softmax and recurrent policies, what they are told, baselines."""

"""Train and evaluate a network: one plain, resumable loop."""

from sartor.training.engine import Cluster
from sartor.training.evaluation import accuracy_interval, check_fits, evaluate
from sartor.training.loop import History, batches_of, fit
from sartor.training.recipe import Recipe

__all__ = ["Cluster", "History", "Recipe", "accuracy_interval", "batches_of", "check_fits", "evaluate", "fit"]

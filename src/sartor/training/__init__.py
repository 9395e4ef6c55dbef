"""Train and evaluate a network: one plain, resumable loop."""

from sartor.training.engine import Cluster
from sartor.training.evaluation import evaluate, score, score_outputs
from sartor.training.fitting import channels_apart, check_fits
from sartor.training.loop import History, batches_of, fit
from sartor.training.recipe import Recipe

__all__ = [
    "Cluster",
    "History",
    "Recipe",
    "batches_of",
    "channels_apart",
    "check_fits",
    "evaluate",
    "fit",
    "score",
    "score_outputs",
]

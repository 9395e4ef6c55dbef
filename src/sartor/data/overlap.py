"""Overlap of predicted and true regions: mIoU and pixel accuracy over a data set, with intervals over its examples."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from sartor.core.metrics import SHARE, Metric


def overlap(classes: int, ignore: int) -> tuple[Metric, ...]:
    """The metrics of segmentation: mIoU, which decides, and the share of right pixels.

    Args:
        classes: Number of classes.
        ignore: A label whose pixels do not count.
    """
    return tuple(
        Metric(name, "max", SHARE, "per_example", partial(Overlap, classes, ignore, name))
        for name in ("miou", "pixel_accuracy")
    )


class Overlap(TorchMetric):
    """Pixels per class over all examples, as the field counts them; the counts of each are kept, for intervals.

    mIoU is the mean over classes of right / (predicted + true - right) pixels, each summed over the data set
    (Everingham et al. 2010, section 4.4); a class that is neither predicted nor true anywhere does not count. It is not
    the mean of the examples' own mIoU, so the bootstrap adds up the counts of the examples that it draws.

    Args:
        classes: Number of classes.
        ignore: A label whose pixels do not count.
        kind: `miou` or `pixel_accuracy`.
    """

    full_state_update = False

    def __init__(self, classes: int, ignore: int, kind: Literal["miou", "pixel_accuracy"]) -> None:
        super().__init__()
        self.classes, self.ignore, self.kind = classes, ignore, kind
        self.seen: list[Tensor] | Tensor
        self.add_state("seen", default=[], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in logits `(batch, classes, H, W)` and labels `(batch, H, W)`."""
        predicted, true = output.argmax(1).flatten(1), target.flatten(1)
        counts = [self._counted(p[t != self.ignore], t[t != self.ignore]) for p, t in zip(predicted, true, strict=True)]
        self.seen.append(torch.stack(counts))  # type: ignore[union-attr] # a tensor only between processes

    def compute(self) -> Tensor:
        return self._of(self.counts.sum(0))

    @property
    def counts(self) -> Tensor:
        """Of each example: right, predicted and true pixels of each class, `(n, 3, classes)`, float64."""
        if isinstance(self.seen, Tensor):
            return self.seen
        if len(self.seen) > 1:
            self.seen = [torch.cat(self.seen)]  # once: the bootstrap asks again and again
        return self.seen[0]

    def resampled(self, times: Tensor) -> float:
        """The metric if example `i` were in the data set `times[i]` times; `times` is `(n,)`."""
        counts = self.counts
        return float(self._of(torch.tensordot(times.to(counts), counts, 1)))

    def _counted(self, predicted: Tensor, true: Tensor) -> Tensor:
        parts = (true[predicted == true], predicted, true)
        return torch.stack([torch.bincount(p, minlength=self.classes) for p in parts]).double()

    def _of(self, counts: Tensor) -> Tensor:
        right, predicted, true = counts
        either = predicted + true - right
        found: Tensor = right.sum() / true.sum()
        if self.kind == "miou":
            found = (right[either > 0] / either[either > 0]).mean()
        return found

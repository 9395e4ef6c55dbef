"""How well predicted latencies agree with measured ones: the error, and how much of it one factor would take away."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sartor.core.errors import DataError
from sartor.latency.design import Floats
from sartor.latency.models import nrmse


@dataclass(frozen=True)
class Agreement:
    """Of one list of predictions with the measurements.

    Attributes:
        networks: How many there are.
        nrmse: Root mean squared error over the mean measurement.
        bias: Mean error over the mean measurement: positive if the predictions are too high.
        scale: What to multiply the predictions with for the least relative error.
        scaled_nrmse: The NRMSE that this leaves.
    """

    networks: int
    nrmse: float
    bias: float
    scale: float
    scaled_nrmse: float

    @classmethod
    def of(cls, predicted: Floats, measured: Floats) -> Agreement:
        """Of predictions and measurements, both `(networks,)` in milliseconds.

        Raises:
            DataError: There is none, or one is not positive.
        """
        if not len(measured) or min(predicted.min(), measured.min()) <= 0:
            raise DataError(f"agreement needs positive latencies, at least one pair; got {len(measured)} pairs")
        share = predicted / measured
        scale = float(share.sum() / (share @ share))
        bias = float((predicted - measured).mean() / measured.mean())
        return cls(len(measured), nrmse(predicted, measured), bias, scale, nrmse(scale * predicted, measured))

    def as_dict(self) -> dict[str, float]:
        """As JSON-able data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"NRMSE {self.nrmse:.1%} on {self.networks} networks, bias {self.bias:+.1%}; "
            f"times {self.scale:.3f} it is {self.scaled_nrmse:.1%}"
        )

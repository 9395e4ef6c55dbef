"""The certified optimum under a budget, for any cost that is a sum of tables: no training, milliseconds.

Which MobileNet-v1 of 150, 300, 450 million multiply-adds keeps the most channels (counted as shares of each layer)?
"""

from __future__ import annotations

import torch

from sartor import archs
from sartor.core.tables import Tables
from sartor.costs.macs import Macs
from sartor.solvers.constrained import optimum
from sartor.spaces.mobilenet_v1 import MobilenetV1


def main() -> list[float]:
    """The optimum's share of channels for each budget."""
    space = MobilenetV1()
    macs = Macs(space).terms()[0]
    kept = [torch.tensor([float(o) / float(c.options[-1]) for o in c.options]) for c in space.choices]
    loss = Tables(tuple(-share.double() / len(kept) for share in kept))
    shares = []
    for budget in (150e6, 300e6, 450e6):
        found = optimum(loss, [(macs, budget)])
        widths = list(archs.describe(space, found.arch).values())
        proved = "proved optimal" if found.optimal else f"at most {found.loss - found.bound:.2g} from the optimum"
        print(f"{budget / 1e6:.0f} M: {macs.cost(found.arch) / 1e6:.1f} M, keeps {-found.loss:.1%} ({proved}) {widths}")
        shares.append(-found.loss)
    return shares


if __name__ == "__main__":
    main()

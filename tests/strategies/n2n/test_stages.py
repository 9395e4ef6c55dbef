from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sartor.core.records import Choice
from sartor.policies.recurrent import Recurrent
from sartor.strategies.n2n.stages import Policies, stages

from strategies.searching import Plain, problem  # isort: skip


def test_removals_come_first_and_what_the_reference_lacks_is_left_out():
    space = Plain()
    space.choices = (
        Choice("keep:a", (0, 1)),
        Choice("width", (4, 8), ordered=True),
        Choice("skip", ("none", "first")),
        Choice("alone", (3,)),
        Choice("keep:b", (0, 1)),
    )
    checked = replace(problem(2), space=space)
    assert stages(checked, (1, 1, 0, 0, 1)) == ([0, 4], [1])
    assert stages(checked, (1, 1, 1, 0, 1)) == ([0, 4], [1, 2])


def policy(seed):
    return Recurrent(torch.eye(2), [2, 3], seed, hidden=3, layers=1, lr=0.1, autoregressive=False)


def test_both_policies_are_saved_and_a_stage_without_one_stays_without():
    one, other = Policies([policy(0), None]), Policies([policy(1), None])
    assert set(one.state_dict()) == {"0"}
    index = np.array([[0, 2]])
    assert not torch.equal(one.all[0].log_probs(index), other.all[0].log_probs(index))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.all[0].log_probs(index), other.all[0].log_probs(index))

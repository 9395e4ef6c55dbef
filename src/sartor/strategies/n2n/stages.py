"""The two stages of N2N: which choices each decides on, and the policy of each."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.core.contracts import Problem
from sartor.core.records import Arch
from sartor.policies.recurrent import Recurrent


class Policies:
    """Those of both stages, as one thing to save."""

    def __init__(self, policies: Sequence[Recurrent | None]) -> None:
        self.all = list(policies)

    def state_dict(self) -> dict[str, object]:
        """The state of each, by its stage."""
        return {str(i): policy.state_dict() for i, policy in enumerate(self.all) if policy is not None}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Put back what `state_dict` took."""
        for i, policy in enumerate(self.all):
            if policy is not None:
                policy.load_state_dict(state[str(i)])


def stages(problem: Problem, reference: Arch) -> tuple[list[int], list[int]]:
    """The choices of each stage, by their places: removals, and what can be shrunk."""
    removals, others = list[int](), list[int]()
    for i, choice in enumerate(problem.space.choices):
        if choice.options == (0, 1):
            removals.append(i)
        elif choice.options[reference[i]] != "none" and len(choice.options) > 1:
            others.append(i)
    return removals, others

"""In which order corrections make sense: who reads verdicts, who compares with the critic, who changes the units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from rollout.component.mistakes import Conflict


class Method(Protocol):
    """What :func:`check_fit` asks of an algorithm."""

    config: Any

    @property
    def needs_critic(self) -> bool:
        """Whether it has a critic, whose shape is ``config.critic``."""
        ...

    @property
    def reads_verdicts(self) -> bool:
        """Whether no correction may change its scores."""
        ...


def check_fit(method: Method, names: Sequence[str], corrections: Sequence[RewardCorrection], reader: str = "") -> None:
    """Refuse corrections that cannot work with a method.

    Args:
        reader: what reads verdicts, for the message; default the method.

    Raises:
        UserError: one needs a critic that is not there, or another one, or changes verdicts that the method reads.
    """
    where, kind = "algorithm.reward_correction", type(method).__name__
    for name, correction in zip(names, corrections, strict=True):
        if method.reads_verdicts and correction.changes_scores:
            raise Conflict(
                f"{where}: {reader or kind} reads a verifier's own 0 or 1, and {name} would change it first; "
                "leave it out"
            )
        if not correction.needs_critic:
            continue
        if not method.needs_critic:
            raise Conflict(f"{where}: {type(correction).__name__} needs a critic, and {kind} has none")
        if misfit := correction.misfit(method.config.critic):
            raise Conflict(f"{where}: {type(correction).__name__} {misfit}")


def check_order(names: Sequence[str], corrections: Sequence[RewardCorrection]) -> None:
    """Refuse an order in which a correction would read something else than it is made for.

    Raises:
        UserError: with the order that is right, or what to leave out.
    """
    for index, (name, correction) in enumerate(zip(names, corrections, strict=True)):
        where = f"algorithm.reward_correction.{index}"
        for other_name, other in zip(names[:index], corrections[:index], strict=True):
            if correction.reads_verdicts and other.changes_scores:
                wanted = f"[{name}, {other_name}]" if not other.reads_verdicts else f"one of {other_name} and {name}"
                raise Conflict(
                    f"{where}: {name} corrects a verifier's own 0 or 1, which {other_name} has changed before it gets "
                    f"there; write {wanted}"
                )
        for other_name, other in zip(names[index + 1 :], corrections[index + 1 :], strict=True):
            if correction.compares_with_critic and other.changes_units:
                raise Conflict(
                    f"{where}: {name} compares rewards with what the critic has learned, which is rewards in the units "
                    f"that {other_name} gives them only afterwards; write [{other_name}, {name}]"
                )


def left_of_maps(names: Sequence[str], corrections: Sequence[RewardCorrection]) -> list[tuple[str, ScoreMap | None]]:
    """Each correction's name, and what is left of its map behind all later ones (None: it is no such map)."""
    found = []
    for index, (name, correction) in enumerate(zip(names, corrections, strict=True)):
        left = correction.score_map
        for later in corrections[index + 1 :]:
            left = None if left is None else later.left_of(left)
        found.append((name, left))
    return found

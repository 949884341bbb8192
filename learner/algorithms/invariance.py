"""Which changes of a batch's rewards an update does not see: corrections say what they map, methods what they ignore.

A correction may map the rewards of all trajectories alike, ``r -> a * r + b`` with a > 0. A group's mean, a critic that
has learned such rewards, whitening and the optimiser take a and b out again, and then the correction changes nothing.
That must be said where it is chosen, so each piece states its part here: a correction its map
(:class:`ScoreMap`), the formula of an advantage what it leaves of a and b (:func:`answers`), and what comes after the
advantage takes out more (:meth:`Answer.take_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class ScoreMap:
    """``r -> a * r + b``, the same for all trajectories of a batch.

    Attributes:
        shifts: b is not 0.
        scales: a is not 1; it is always above 0.
    """

    shifts: bool = False
    scales: bool = False

    def __str__(self) -> str:
        return f"{'a * ' if self.scales else ''}r{' + b' if self.shifts else ''}"


@dataclass(frozen=True)
class Trace:
    """What is left of a, or of b.

    Attributes:
        is_alike: the same for every token: a factor of all advantages, or a number added to each.
        taken_out_by: what removed it; empty where it is still there.
    """

    is_alike: bool = False
    taken_out_by: str = ""


MIXED = Trace()
"""It changes the proportions between tokens, or nothing is known of it."""
ALIKE = Trace(is_alike=True)


def gone(by: str) -> Trace:
    """It is no longer there."""
    return Trace(is_alike=True, taken_out_by=by)


@dataclass(frozen=True)
class Answer:
    """How advantages, or the whole update, answer to ``a * r + b`` in the place of r. By default all of it is seen."""

    shift: Trace = MIXED
    scale: Trace = MIXED

    def take_out(self, by: str, *, shift: bool = False, scale: bool = False) -> Answer:
        """With what is alike for every token taken out, unless it has been before."""

        def left(trace: Trace, is_taken: bool) -> Trace:
            return gone(by) if is_taken and trace.is_alike and not trace.taken_out_by else trace

        return replace(self, shift=left(self.shift, shift), scale=left(self.scale, scale))

    def reasons(self, found: ScoreMap) -> list[str] | None:
        """What takes a map out, part by part; None where some of it is seen."""
        parts = [("b", self.shift)] * found.shifts + [("a", self.scale)] * found.scales
        if any(not trace.taken_out_by for _, trace in parts):
            return None
        return [f"{trace.taken_out_by} takes {name} out" for name, trace in parts]


def answers(shift: Trace = MIXED, scale: Trace = MIXED) -> Callable[[Function], Function]:
    """Mark the formula of an advantage with its answer. One that overrides it is not marked, so nothing is claimed."""

    def mark(function: Function) -> Function:
        function.answer = Answer(shift, scale)  # type: ignore[attr-defined]
        return function

    return mark


def answer_of(function: Callable[..., Any]) -> Answer:
    """The answer that a formula is marked with; without a mark, that it sees everything."""
    found = getattr(function, "answer", None)
    return found if isinstance(found, Answer) else Answer()


def without_trace(maps: Iterable[tuple[str, ScoreMap | None]], answer: Answer) -> list[str]:
    """A sentence for each correction that changes nothing; it starts with the correction's place.

    Args:
        maps: the corrections' names and what is left of their maps behind the later ones, in order; None: no such map.
        answer: of the update.
    """
    told = []
    for index, (name, found) in enumerate(maps):
        reasons = None if found is None else answer.reasons(found)
        if found is not None and reasons is not None:
            how = f"it makes {found} of every reward r, and {' and '.join(reasons)} again" if reasons else "r stays r"
            told.append(f"algorithm.reward_correction.{index}: {name} changes nothing here: {how}; leave it out")
    return told

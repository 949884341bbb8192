"""Did the weights arrive as they left? Facts of each tensor, taken where it leaves and compared where it is loaded."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SHOWN_PROBLEMS = 5
"""Tensors that the message of a mismatch lists."""

MAX_CANARY_TOKENS = 64
"""The canary's cost is one prompt an engine and sync; more tokens would say little more."""

OLD_WEIGHTS_ADVICE = (
    "Its engine kept the weights it had, and nothing was trained since. Something between learner and engine (memory, "
    "network, disk) changes data: look at that machine, then go on with --resume auto"
)
IN_DOUBT_ADVICE = (
    "What it samples from cannot be trusted, and nothing was trained since. If it is so at each start, vLLM's loader "
    "does not fit this model; if not, go on with --resume auto"
)


class TensorFact(NamedTuple):
    """What one tensor has to be.

    Attributes:
        shape: its shape.
        dtype: name of its number format, as numpy and torch call it.
        checksum: CRC-32 of its bytes, or None where they are not compared.
    """

    shape: tuple[int, ...]
    dtype: str
    checksum: int | None

    def __str__(self) -> str:
        shape = f"{self.dtype} {list(self.shape)}"
        return shape if self.checksum is None else f"{shape} with checksum {self.checksum:08x}"


class WeightMismatchError(RuntimeError):
    """An engine does not hold the weights that the learner has sent.

    Attributes:
        worker: name of the engine's worker.
        version: weight version that was being published.
        problems: what differs, one entry a finding.
        advice: what state the engine is in and what to do.
    """

    def __init__(self, worker: str, version: int, problems: Sequence[str], advice: str) -> None:
        # All arguments, so that the exception survives pickling on its way between processes.
        super().__init__(worker, version, tuple(problems), advice)
        self.worker, self.version, self.problems, self.advice = worker, version, tuple(problems), advice

    def __str__(self) -> str:
        hidden = len(self.problems) - SHOWN_PROBLEMS
        shown = [*self.problems[:SHOWN_PROBLEMS], *([f"and {hidden} more"] if hidden > 0 else [])]
        return f"weight version {self.version} is not what {self.worker} holds: {'; '.join(shown)}. {self.advice}"


def facts_of(weights: Mapping[str, np.ndarray], checksums: bool = True) -> dict[str, TensorFact]:
    """The facts of arrays in memory; without ``checksums`` their bytes are not read."""
    return {
        name: TensorFact(array.shape, array.dtype.name, checksum(array) if checksums else None)
        for name, array in weights.items()
    }


def checksum(array: np.ndarray) -> int:
    """CRC-32 of the bytes, in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def differences(expected: Mapping[str, TensorFact], found: Iterable[tuple[str, TensorFact]]) -> list[str]:
    """What is missing, too much, or not as expected; one line a tensor, empty if all is well."""
    arrived = dict(found)
    problems = [f"{name}: missing" for name in sorted(expected.keys() - arrived.keys())]
    problems += [f"{name}: not expected" for name in sorted(arrived.keys() - expected.keys())]
    for name in sorted(expected.keys() & arrived.keys()):
        if arrived[name] != expected[name]:
            problems.append(f"{name}: expected {expected[name]}, found {arrived[name]}")
    return problems


def digest(facts: Mapping[str, TensorFact]) -> str:
    """One name for a set of weights: equal for equal tensors, whatever their order. Needs checksums."""
    text = repr(sorted((name, tuple(fact)) for name, fact in facts.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def canary_tolerance(*dtypes: str) -> float:
    """Largest canary gap that rounding explains, for the number formats of engine and learner, in nats. Our choice.

    On small random models on a CPU the gap was at most 1e-5 in float32 and 0.12 with 16 bits on either side. With 16
    bits that is a ceiling only, and what rounding explains is found out by each run, see :class:`Canary`.
    """
    return 1e-3 if all(dtype == "float32" for dtype in dtypes) else 0.5


GROWTH = 4.0
"""How often the mean gap of a run's beginning is still taken for rounding: it grows as a policy gets sharper."""
LEAST_MEAN = 0.005
"""A mean gap that is always taken for rounding to 16 bits, in nats."""


@dataclass(slots=True)
class Canary:
    """A fixed token sequence to which learner and engines have to give the same log-probabilities.

    With 16 bits no fixed limit fits: half a nat at one token is possible (another expert is chosen), and old weights
    may be off by much less at all of them. So a canary that ``learns`` also limits the mean over the tokens, to a
    multiple of what it was when the weights were known to be the same.

    Attributes:
        token_ids: at least two; what is beyond :data:`MAX_CANARY_TOKENS` is left out.
        tolerance: largest accepted difference of a token's log-probability, in nats.
        learns: whether :meth:`learn` sets ``mean_tolerance``.
        mean_tolerance: largest accepted mean difference, in nats; None while it is not known.
    """

    token_ids: tuple[int, ...]
    tolerance: float
    learns: bool = False
    mean_tolerance: float | None = None

    def __post_init__(self) -> None:
        if len(self.token_ids) < 2:
            raise ValueError("a canary needs at least two tokens: the first one has no log-probability")
        self.token_ids = self.token_ids[:MAX_CANARY_TOKENS]

    @property
    def needs_scale(self) -> bool:
        """Whether :meth:`learn` is to be called before the next sync, or with the first one."""
        return self.learns and self.mean_tolerance is None

    def learn(self, expected: Sequence[float], found: Iterable[Sequence[float]]) -> None:
        """Take the mean gap between learner and engines that hold the same weights for that of rounding."""
        means = [float(self._gaps("an engine", expected, one)[1:].mean()) for one in found]
        if means and self.needs_scale:
            self.mean_tolerance = max(LEAST_MEAN, GROWTH * max(means))

    def check(self, worker: str, version: int, expected: Sequence[float], found: Sequence[float]) -> float:
        """Largest absolute difference of the learner's and an engine's log-probabilities, in nats.

        Raises:
            WeightMismatchError: it, or their mean, is above the tolerance, or not a number.
            ValueError: the lists differ in length.
        """
        gaps = self._gaps(worker, expected, found)
        gap, mean = float(gaps.max()), float(gaps[1:].mean())
        said = f"log-probabilities of the canary ({len(expected)} tokens) differ from the learner's by "
        # Not "gap > tolerance": NaN has to be refused too.
        if not gap <= self.tolerance:
            problem = f"{said}up to {gap:.3g} nats, and rollout.canary_tolerance is {self.tolerance:g}"
            raise WeightMismatchError(worker, version, [problem], IN_DOUBT_ADVICE)
        if self.mean_tolerance is not None and not mean <= self.mean_tolerance:
            problem = (
                f"{said}{mean:.3g} nats on average, more than the {self.mean_tolerance:.3g} that rounding explained at "
                "this run's start; a value for rollout.canary_tolerance takes the place of that limit"
            )
            raise WeightMismatchError(worker, version, [problem], IN_DOUBT_ADVICE)
        return gap

    @staticmethod
    def _gaps(worker: str, expected: Sequence[float], found: Sequence[float]) -> np.ndarray:
        if len(expected) != len(found):
            raise ValueError(f"{worker} gave {len(found)} log-probabilities for a canary of {len(expected)} tokens")
        return np.abs(np.asarray(expected, dtype=np.float64) - np.asarray(found, dtype=np.float64))

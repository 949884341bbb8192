"""One sample in the ledger: its states, what is kept of its score, and how it is spelled in the file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollout.trajectory import REPLACEMENT_STRIDE

PLACE = "CAST(SUBSTR(trajectory_id, LENGTH(prompt_id) + 2) AS INTEGER)"
"""In SQL, the number in a sample's name, where its group is joined."""
IS_REPLACEMENT = f"{PLACE} >= {REPLACEMENT_STRIDE}"


class SampleState(StrEnum):
    """Where a sample is; see the module's description."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    READY = "ready"
    TRAINED = "trained"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScore:
    """What reports may know of a sample's score.

    Attributes:
        observed: the score that training sees; None where a vote or a stand-in takes its place.
        answer_key: samples of one prompt with the same key have the same true reward; empty if it stands for itself.
        gold: the true score, where the user lets it be looked at.
    """

    observed: float | None = None
    answer_key: str = ""
    gold: float | None = None


UNKNOWN_SCORE = SampleScore()


@dataclass(frozen=True, slots=True)
class Position:
    """Where generation goes on.

    Attributes:
        next_index: the first place in the sequence of prompts that was never admitted.
        unfinished: groups that were admitted and have a sample that is neither trained nor dropped, ascending.
    """

    next_index: int
    unfinished: tuple[int, ...]


def pack_ids(trajectory_ids: Sequence[str]) -> bytes:
    """Names of samples, sorted, in few bytes."""
    return zlib.compress(json.dumps(sorted(trajectory_ids)).encode())


def unpack_ids(packed: bytes) -> list[str]:
    """What :func:`pack_ids` was given, sorted."""
    names: list[str] = json.loads(zlib.decompress(packed))
    return names

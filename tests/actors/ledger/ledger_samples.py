"""A small ledger's groups and samples, for its tests."""

from __future__ import annotations

from pathlib import Path

from actors.ledger.account import list_samples
from actors.ledger.file import open_for_reading
from actors.ledger.ledger import Ledger
from actors.ledger.samples import SampleState
from rollout.trajectory import Prompt, SampleRequest

PROMPTS, SIZE = 3, 2


def names(index: int) -> list[str]:
    """The samples of the group at ``index``."""
    epoch, place = divmod(index, PROMPTS)
    return [f"p-{place}#{epoch * SIZE + i}" for i in range(SIZE)]


def replacement(name: str) -> str:
    """The sample that takes the place of another."""
    prompt_id, _, number = name.rpartition("#")
    request = SampleRequest(
        Prompt(prompt_id=prompt_id, messages=(), token_ids=(1,), reference=None, task="t"), int(number)
    )
    return request.replacement().trajectory_id


def admit(ledger: Ledger, index: int) -> None:
    """Begin the group at ``index``."""
    epoch, place = divmod(index, PROMPTS)
    ledger.admit(index, f"p-{place}", epoch, epoch * SIZE, SIZE)


def states(path: Path) -> dict[str, tuple[str, int | None]]:
    """State and step of each sample, read by another connection."""
    with open_for_reading(path) as db:
        return {row["trajectory_id"]: (state, row["step"]) for state in SampleState for row in list_samples(db, state)}

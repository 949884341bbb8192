"""Each grader against a table of notations, every line with its right verdict and the reason for it.

A false positive trains towards a wrong answer, and a false negative takes a right one away: there may be none.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rollout.component import ComponentSpec
from rollout.rewards.base import Reward
from rollout.rewards.function import build_reward
from tests.rollout.rewards.cases import case

TABLES = {path.stem: path for path in sorted((Path(__file__).parent / "notation").glob("*.jsonl"))}


def lines_of(grader: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in TABLES[grader].read_text(encoding="utf-8").splitlines()]


class Graders:
    """One reward for each set of options."""

    def __init__(self) -> None:
        self._built: dict[str, Reward] = {}

    async def score(self, grader: str, line: dict[str, Any]) -> tuple[float, str | None]:
        """The score, and what was read as the answer."""
        options = line.get("options", {})
        key = json.dumps([grader, options])
        if key not in self._built:
            self._built[key] = build_reward(ComponentSpec(type=grader, **options), "reward")
        reward = self._built[key]
        prompt, trajectory = case(line["response"], line["reference"], cut=line.get("finish_reason") == "length")
        value = reward(prompt, trajectory)
        return await value if inspect.isawaitable(value) else value, reward.read_answer(prompt, trajectory)

    async def close(self) -> None:
        for reward in self._built.values():
            await reward.close()


@pytest.fixture
async def graders() -> AsyncIterator[Graders]:
    found = Graders()
    yield found
    await found.close()


OF_A_SYMBOLIC_LIBRARY = "math_verify"
"""Takes seconds for its table."""


@pytest.mark.parametrize(
    "grader", [pytest.param(name, marks=pytest.mark.slow) if name == OF_A_SYMBOLIC_LIBRARY else name for name in TABLES]
)
async def test_a_grader_pays_nothing_wrong_and_misses_nothing(grader: str, graders: Graders) -> None:
    if grader == "math_verify":
        pytest.importorskip("math_verify")
    wrong: list[str] = []
    missed: list[str] = []
    for number, line in enumerate(lines_of(grader), start=1):
        score, read = await graders.score(grader, line)
        if (score == 1.0) is not line["label"]:
            text = f"{grader}.jsonl:{number}: {line['why']}: read {read!r} in {line['response']!r}"
            (missed if line["label"] else wrong).append(text)
    assert wrong == []
    assert missed == []


def test_the_tables_are_whole() -> None:
    """Enough lines, none twice, right and wrong ones for each grader, a reason for each."""
    assert set(TABLES) == {"exact_match", "math_verify", "multiple_choice", "numeric", "response_format"}
    tables = {grader: lines_of(grader) for grader in TABLES}
    assert sum(map(len, tables.values())) >= 300
    for lines in tables.values():
        keys = [json.dumps({key: line[key] for key in line if key not in ("why", "label")}) for line in lines]
        assert len(set(keys)) == len(keys)
        assert {line["label"] for line in lines} == {True, False}
        assert all(line["why"] for line in lines)

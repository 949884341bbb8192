"""Trajectories that a run has logged, as a report shows them: text, rewards, and what was recorded of each token."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.recording.trajectory_log import step_files

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What the learner knew of the tokens of one trajectory, from its first sampled token on.

    Every list has one entry a token, None where nothing was recorded.

    Attributes:
        texts: the tokens, decoded one by one.
        sampled: whether the policy sampled it; false for what an environment said in between.
        advantages: as the policy's loss saw them.
        sampler, old, new: log-probability of the sampler, and of the learner before and after the update, in nats.
        levels: of ``values``, ascending in (0, 1).
        values: [token head level] quantiles of the critic's value just before the token; empty without a critic.
        num_left_out: tokens after these that did not fit.
    """

    texts: Sequence[str]
    sampled: Sequence[bool]
    advantages: Sequence[float | None]
    sampler: Sequence[float | None]
    old: Sequence[float | None]
    new: Sequence[float | None]
    levels: Sequence[float] = ()
    values: Sequence[Sequence[Sequence[float]] | None] = ()
    num_left_out: int = 0

    @property
    def disagreement(self) -> float:
        """Mean over tokens of how far the means of the critic's heads are apart; NaN with fewer than two heads."""
        spreads = []
        for token in self.values:
            if token is not None and len(token) > 1:
                means = [sum(head) / len(head) for head in token]
                spreads.append(max(means) - min(means))
        return sum(spreads) / len(spreads) if spreads else math.nan

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TokenRecord:
        """From the form that ``trajectories/step-N.jsonl`` has.

        Raises:
            KeyError, TypeError: it has another form.
        """
        names = ("texts", "sampled", "advantages", "sampler", "old", "new", "levels", "values", "num_left_out")
        return cls(**{name: record[name] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTrajectory:
    """One line of a trajectory log.

    Attributes:
        step: training step that it was part of.
        prompt: the messages before the response.
        turns: what was said after the prompt, where there was an environment.
        observed, clean: score after and before noise, or what ``reward.gold`` said; None if unknown.
        parts: clean score of each reward function.
        versions: oldest and newest weights that sampled it.
        corrected: the reward that corrections handed to the method; None if there is no record of it.
        tokens: what was recorded of its tokens, or None.
    """

    trajectory_id: str
    step: int
    prompt: Sequence[Message]
    response: str
    reference: str | None
    observed: float | None
    clean: float | None
    finish_reason: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)
    versions: tuple[int, int] | None = None
    engine: str = ""
    turns: Sequence[Message] = ()
    corrected: float | None = None
    tokens: TokenRecord | None = None

    @property
    def prompt_id(self) -> str:
        """Of the prompt."""
        return self.trajectory_id.rpartition("#")[0]

    @classmethod
    def of(cls, record: Mapping[str, Any], step: int) -> LoggedTrajectory:
        """From one line of the log of any version.

        Raises:
            KeyError, TypeError: it is no such line.
        """
        versions, tokens = record.get("policy_versions"), record.get("tokens")
        return cls(
            trajectory_id=str(record["trajectory_id"]),
            step=step,
            prompt=record["messages"],
            response=str(record["response"]),
            reference=None if record.get("reference") is None else str(record["reference"]),
            observed=record.get("observed_reward"),
            clean=record.get("clean_reward"),
            finish_reason=str(record.get("finish_reason", "")),
            parts=record.get("reward_parts") or {},
            versions=None if versions is None else (int(versions[0]), int(versions[1])),
            engine=str(record.get("engine", "")),
            turns=record.get("conversation") or (),
            corrected=record.get("corrected_reward"),
            tokens=None if tokens is None else TokenRecord.of(tokens),
        )


def read_trajectories(folder: Path, problems: list[str]) -> list[LoggedTrajectory]:
    """Every trajectory that a run has logged, by step.

    Args:
        folder: ``trajectories`` of the run; it may be missing.
        problems: what could not be read is added to it, a sentence each.
    """
    found: list[LoggedTrajectory] = []
    num_bad = 0
    for step, path in step_files(folder).items():
        for line in _lines(path):
            try:
                found.append(LoggedTrajectory.of(json.loads(line), step))
            except (ValueError, KeyError, TypeError, IndexError):
                num_bad += 1
    if num_bad:
        problems.append(f"{num_bad} lines of trajectories/ are cut off or of a form that this version does not know")
    return found


def _lines(path: Path) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8", errors="replace").splitlines()

"""A few trajectories of each step, written for people to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.groups import Group, Sample
from learner.update.result import TokenTrace
from rollout.tasks.json_values import NoJsonForm, json_value
from rollout.trajectory import Prompt, Trajectory

Spell = Callable[[Sequence[int]], list[str]]
"""Tokens one by one as text, special ones included."""


class TrajectoryLog:
    """Writes ``step-N.jsonl`` files, and deletes the oldest when there are too many.

    Args:
        folder: where to.
        num_samples: trajectories kept of each step.
        keep_files: files kept: those of the newest steps.
        max_token_bytes: most bytes of one file that are records of single tokens.
        spell: says tokens; without it they have no text.
    """

    def __init__(
        self,
        folder: Path,
        num_samples: int,
        keep_files: int = 1000,
        max_token_bytes: int = 0,
        spell: Spell | None = None,
    ) -> None:
        self._folder = folder
        self._num_samples = num_samples
        self._keep_files = keep_files
        self._max_token_bytes, self._spell = max_token_bytes, spell
        # Files of earlier attempts count too: the limit is one on the folder.
        self._steps = set(step_files(folder))

    async def write(self, step: int, groups: Sequence[Group], traces: Mapping[str, TokenTrace] | None = None) -> None:
        """Fetch and write the first trajectories of a step's batch; ``traces``: what the learner knew of their tokens.

        Records of tokens that would be more than ``max_token_bytes`` are left out.
        """
        chosen = [(group, sample) for group in groups for sample in group.samples][: self._num_samples]
        if not chosen:
            return
        # Only those that are written are fetched into this process; of the others it holds references.
        records, room = [], self._max_token_bytes
        for group, sample in chosen:
            trajectory = await sample.trajectory
            record = _record(group, sample, trajectory)
            trace = (traces or {}).get(trajectory.trajectory_id)
            if trace is not None:
                if trace.corrected is not None:
                    record["corrected_reward"] = trace.corrected
                tokens = _tokens(trajectory, trace, self._spell)
                size = len(json.dumps(tokens, ensure_ascii=False).encode("utf-8", "replace"))
                if size <= room:
                    room -= size
                    record["tokens"] = tokens
            records.append(record)
        self._folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (self._folder / f"step-{step}.jsonl").write_text(text, encoding="utf-8")
        self._steps.add(step)
        for old in sorted(self._steps)[: -self._keep_files]:
            (self._folder / f"step-{old}.jsonl").unlink(missing_ok=True)
            self._steps.discard(old)


def step_files(folder: Path) -> dict[int, Path]:
    """The files of a log by step, ascending: step-10 comes after step-9."""
    files = {int(path.stem[5:]): path for path in folder.glob("step-*.jsonl") if path.stem[5:].isdigit()}
    return dict(sorted(files.items()))


def _record(group: Group, sample: Sample, trajectory: Trajectory) -> dict[str, Any]:
    """Everything that a reward has read, so that an audit can score the response again, and what came of it."""
    return {
        "trajectory_id": trajectory.trajectory_id,
        "task": group.prompt.task,
        "messages": group.prompt.messages,
        "reference": group.prompt.reference,
        "extra": _extra(group.prompt),
        "response": trajectory.response_text,
        **trajectory.conversation,
        "finish_reason": trajectory.finish_reason,
        "observed_reward": sample.reward.observed,
        "clean_reward": sample.reward.clean,
        "reward_parts": sample.reward.parts,
        "policy_versions": [trajectory.policy_version_min, trajectory.policy_version_max],
        "engine": trajectory.engine,
    }


def _tokens(trajectory: Trajectory, trace: TokenTrace, spell: Spell | None) -> dict[str, Any]:
    """Of each token from the first sampled one on, with None where nothing is known; see docs/report.md."""
    place = slice(trace.first, trace.first + len(trace.sampled))
    ids = trajectory.token_ids[place]
    sampler = [
        round(logprob, 4) if sampled else None
        for logprob, sampled in zip(trajectory.rollout_logprobs[place], trace.sampled, strict=True)
    ]
    return {
        "texts": [f"<{token}>" for token in ids] if spell is None else spell(ids),
        "sampled": trace.sampled,
        "advantages": trace.advantages,
        "sampler": sampler,
        "old": trace.old,
        "new": trace.new,
        "levels": trace.levels,
        "values": trace.values,
        "num_left_out": trace.num_left_out,
    }


def _extra(prompt: Prompt) -> dict[str, Any]:
    """The further columns, without what JSON has no form for: a task of the user's own may keep any object there."""
    found = {}
    for name, value in prompt.extra.items():
        with suppress(NoJsonForm):
            found[name] = json_value(value)
    return found

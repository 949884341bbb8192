"""``dvpo reward-model pairs``: preference pairs from a task, by a model's own responses and their clean scores."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.config.object_store import chosen_object_store_mib
from cluster.config.paths import absolute_model_path
from cluster.config.prompts import load_prompts
from cluster.config.run_config import RunConfig
from cluster.run.serving import serving_fleet, serving_pools
from cluster.run.session import ray_session
from cluster.run.workers import Fleet
from rollout.component.mistakes import NothingScored, NotWritable
from rollout.rewards.model import conversation
from rollout.seeding import stream
from rollout.trajectory import Message, Prompt, SampleRequest, Trajectory


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """What the policy said (and heard) after a prompt, and its clean score; None if there is none."""

    messages: tuple[Message, ...]
    score: float | None


@dataclass(frozen=True, slots=True)
class PairsReport:
    """What was written.

    Attributes:
        num_prompts: prompts that were sampled.
        num_paired: those that gave a pair; to the others all responses scored the same.
        num_unscored: responses without a score.
    """

    path: Path
    num_pairs: int
    num_prompts: int
    num_paired: int
    num_unscored: int

    def lines(self) -> list[str]:
        """For the terminal."""
        unscored = f"; {self.num_unscored} responses could not be scored" if self.num_unscored else ""
        return [f"{self.path}: {self.num_pairs} pairs from {self.num_paired} of {self.num_prompts} prompts{unscored}"]


def make_pairs(
    config: RunConfig, output: Path, num_prompts: int, samples_per_prompt: int, pairs_per_prompt: int
) -> PairsReport:
    """Sample responses to training prompts as training would, score them without noise, and write pairs.

    Args:
        config: a run's; its seed chooses prompts, responses and pairs.
        output: JSONL file.

    Raises:
        UserError: the file cannot be written, or no prompt has responses of different scores.
    """
    path = absolute_model_path(config.model.path)
    source = load_prompts(config, path).training
    prompts = [source.at(index)[1] for index in range(min(num_prompts, len(source)))]
    _write(output, "")  # before anything is computed
    with ray_session(config, config.run_dir.resolve(), chosen_object_store_mib(config, trains=False)):
        responses = _responses(config, path, prompts, samples_per_prompt)
    rows = []
    for prompt in prompts:
        rows += pair_rows(prompt, responses[prompt.prompt_id], pairs_per_prompt, config.seed)
    unscored = sum(response.score is None for found in responses.values() for response in found)
    if not rows:
        raise NothingScored(
            f"not one of {len(prompts)} prompts has two responses with different scores ({unscored} of "
            f"{len(prompts) * samples_per_prompt} responses have none); raise --num-prompts or --samples-per-prompt"
        )
    _write(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return PairsReport(output, len(rows), len(prompts), len({row["prompt_id"] for row in rows}), unscored)


def pair_rows(
    prompt: Prompt, responses: Sequence[ScoredResponse], pairs_per_prompt: int, seed: int
) -> list[dict[str, Any]]:
    """Up to ``pairs_per_prompt`` rows of different responses whose scores differ, the higher one chosen."""
    distinct = {json.dumps(r.messages): (r.messages, r.score) for r in responses if r.score is not None}
    ordered = itertools.permutations(distinct.values(), 2)
    found = [(high, low) for high, low in ordered if high[1] > low[1]]
    rng = stream(seed, prompt.prompt_id, 0, "preference-pairs")
    return [
        {
            "prompt_id": prompt.prompt_id,
            "prompt": list(prompt.messages),
            "chosen": _text_or_messages(high[0]),
            "rejected": _text_or_messages(low[0]),
            "chosen_score": high[1],
            "rejected_score": low[1],
        }
        for high, low in rng.sample(found, min(pairs_per_prompt, len(found)))
    ]


def _text_or_messages(messages: tuple[Message, ...]) -> Any:
    return messages[0]["content"] if len(messages) == 1 else list(messages)


class Sampler:
    """Asks the workers inside Ray, where actor calls can be awaited."""

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        self._pool, self._rewards = serving_pools(config, fleet)

    async def one(self, prompt: Prompt, index: int) -> ScoredResponse:
        """One sampled and scored response."""
        _, reference = await self._pool.sample(SampleRequest(prompt, index))
        trajectory: Trajectory = await reference
        if trajectory.failure:  # of its environment
            return ScoredResponse((), None)
        record = await self._rewards.clean_score(prompt, trajectory)
        return ScoredResponse(conversation(prompt, trajectory)[len(prompt.messages) :], record.clean)

    async def all(self, wanted: Sequence[Prompt], samples_per_prompt: int) -> dict[str, list[ScoredResponse]]:
        """Responses to each prompt, by its id."""
        asked = [self.one(prompt, index) for prompt in wanted for index in range(samples_per_prompt)]
        answers = iter(await asyncio.gather(*asked))
        return {prompt.prompt_id: [next(answers) for _ in range(samples_per_prompt)] for prompt in wanted}


def _responses(
    config: RunConfig, path: str, prompts: Sequence[Prompt], samples_per_prompt: int
) -> Mapping[str, list[ScoredResponse]]:
    """Sampled and scored responses by prompt id."""
    with serving_fleet(config, path) as fleet:
        sampler = ray.remote(Sampler).options(num_cpus=0).remote(config, fleet)
        found: dict[str, list[ScoredResponse]] = ray.get(
            sampler.all.remote(list(prompts), samples_per_prompt), timeout=config.cluster.step_timeout_s
        )
        return found


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NotWritable(f"--output: cannot write {path}: {error.strerror}") from error

"""``dvpo eval``: greedy answers of one checkpoint from real engines, scored without noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors.loop.evaluation import Answer, answer_all, split_metrics
from cluster.config.prompts import load_prompts
from cluster.config.run_config import RunConfig
from cluster.display.progress import Row
from cluster.run.serving import serving_pools, serving_workers
from cluster.run.session import ray_session
from rollout.component import UserError
from rollout.trajectory import Prompt


def run_evaluation(config: RunConfig, model: Path, splits: Sequence[str], output: Path | None) -> list[Row]:
    """Measure a model folder on held-out prompts.

    Args:
        config: task, rewards and rollout options; noise is not applied.
        model: folder in Hugging Face format.
        splits: which of the task's splits.
        output: where each answer is written as a line of JSON, or None.

    Returns:
        Rows of a table: mean clean score of each split, and how many answers could not be scored; then what else
        :func:`actors.loop.evaluation.split_metrics` found in it.
    """
    path = str(model.resolve())
    prompts = {split: members for split, members in load_prompts(config, path).held_out.items() if split in splits}
    with ray_session(config, config.run_dir.resolve()):
        answers = _answers(config, path, prompts)
    if output is not None:
        _write_answers(output, answers)
    rows = [("model", path)]
    for split, members in answers.items():
        unscored = sum(answer.reward.clean is None for answer in members)
        note = f", {unscored} could not be scored" if unscored else ""
        # Always has the accuracy; whatever else is in it follows, indented.
        means = split_metrics(members)
        rows.append((f"clean accuracy ({split})", f"{means.pop('accuracy'):.3f} on {len(members)} prompts{note}"))
        rows += [(f"  {name} ({split})", f"{value:.3f}") for name, value in means.items()]
    return rows


class _Evaluator:
    """An actor that runs :func:`answer_all`: only inside Ray can calls of actors be awaited."""

    def __init__(self, config: RunConfig, rollouts: list[Any], rewards: list[Any], create: Any) -> None:
        self._pool, self._rewards = serving_pools(config, rollouts, rewards, create)

    async def answer(self, wanted: dict[str, list[Prompt]]) -> dict[str, list[Answer]]:
        return {split: await answer_all(self._pool, self._rewards, prompts) for split, prompts in wanted.items()}


def _answers(config: RunConfig, path: str, prompts: dict[str, list[Prompt]]) -> dict[str, list[Answer]]:
    """Start the engines, answer everything, end the engines."""
    with serving_workers(config, path) as workers:
        actor = ray.remote(_Evaluator).options(num_cpus=0)
        evaluator = actor.remote(config, workers.rollouts, workers.rewards, workers.reward_factory)
        reply = evaluator.answer.remote(prompts)
        answers: dict[str, list[Answer]] = ray.get(reply, timeout=config.cluster.step_timeout_s)
        return answers


def _write_answers(path: Path, answers: dict[str, list[Answer]]) -> None:
    lines = []
    for split, members in answers.items():
        for answer in members:
            record = {
                "split": split,
                "prompt_id": answer.prompt.prompt_id,
                "messages": answer.prompt.messages,
                "reference": answer.prompt.reference,
                "response": answer.trajectory.response_text,
                **answer.trajectory.conversation,
                "token_ids": answer.trajectory.response_token_ids,
                "clean_reward": answer.reward.clean,
            }
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from error

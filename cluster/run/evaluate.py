"""``dvpo eval``: greedy answers of one checkpoint from real engines, scored without noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.loop.evaluation import Answer, answer_all, split_metrics
from cluster.config.object_store import chosen_object_store_mib
from cluster.config.prompts import load_prompts
from cluster.config.run_config import RunConfig
from cluster.display.report import Row, intervals, with_interval
from cluster.preload.head_start import HeadStart
from cluster.run.serving import serving_fleet, serving_pools
from cluster.run.session import ray_session
from cluster.run.workers import Fleet
from rollout.component import UserError
from rollout.trajectory import Prompt

_ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")


def run_evaluation(
    config: RunConfig, model: Path, splits: Sequence[str], output: Path | None, start: HeadStart | None = None
) -> list[Row]:
    """Measure a model folder on held-out prompts: :func:`answer_splits`, written and as a table.

    Args:
        output: where each answer is written as a line of JSON, or None.
        start: see :func:`answer_splits`.

    Returns:
        Rows of a table: mean clean score of each split, and how many answers could not be scored; then what else
        :func:`actors.loop.evaluation.split_metrics` found in it.
    """
    answers = answer_splits(config, model, splits, start)
    if output is not None:
        _write_answers(output, answers)
    rows = [("model", str(model.resolve()))]
    for split, members in answers.items():
        unscored = sum(answer.reward.clean is None for answer in members)
        note = f", {unscored} could not be scored" if unscored else ""
        # Always has the accuracy; whatever else is in it follows, indented.
        means = split_metrics(members)
        accuracy = with_interval(means["accuracy"], intervals(means).get("accuracy"))
        rows.append((f"clean accuracy ({split})", f"{accuracy} on {len(members)} prompts{note}"))
        rows += [(f"  {name} ({split})", f"{value:.3f}") for name, value in means.items() if name not in _ACCURACY]
    return rows


def answer_splits(
    config: RunConfig, model: Path, splits: Sequence[str], start: HeadStart | None = None
) -> dict[str, list[Answer]]:
    """Answers of a model folder to held-out prompts, with their clean scores, from engines that are started for it.

    Args:
        config: task, rewards and rollout options; noise is not applied.
        model: folder in Hugging Face format.
        splits: which of the task's splits.
        start: what a private Ray begins with, where it is there already.
    """
    path = str(model.resolve())
    prompts = {split: members for split, members in load_prompts(config, path).held_out.items() if split in splits}
    store_mib = chosen_object_store_mib(config, trains=False)
    with ray_session(config, config.run_dir.resolve(), store_mib, start):
        return _answers(config, path, prompts)


class Evaluator:
    """Runs :func:`answer_all` inside Ray, where actor calls can be awaited."""

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        self._pool, self._rewards = serving_pools(config, fleet)

    async def answer(self, wanted: Mapping[str, Sequence[Prompt]]) -> dict[str, list[Answer]]:
        """Greedy answers to each split's prompts."""
        return {split: await answer_all(self._pool, self._rewards, members) for split, members in wanted.items()}


def _answers(config: RunConfig, path: str, prompts: Mapping[str, Sequence[Prompt]]) -> dict[str, list[Answer]]:
    """Start the engines, answer everything, end the engines."""
    with serving_fleet(config, path) as fleet:
        evaluator = ray.remote(Evaluator).options(num_cpus=0).remote(config, fleet)
        answers: dict[str, list[Answer]] = ray.get(
            evaluator.answer.remote(prompts), timeout=config.cluster.step_timeout_s
        )
        return answers


def answer_record(split: str, answer: Answer) -> dict[str, Any]:
    """One answer as a line of a file or a row of a table."""
    return {
        "split": split,
        "prompt_id": answer.prompt.prompt_id,
        "messages": answer.prompt.messages,
        "reference": answer.prompt.reference,
        "response": answer.trajectory.response_text,
        **answer.trajectory.conversation,
        "token_ids": answer.trajectory.response_token_ids,
        "clean_reward": answer.reward.clean,
    }


def _write_answers(path: Path, answers: Mapping[str, Sequence[Answer]]) -> None:
    records = [answer_record(split, answer) for split, members in answers.items() for answer in members]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from error

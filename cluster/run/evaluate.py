"""``dvpo eval``: answers of one checkpoint from real engines, scored without noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.loop.evaluation import Answer, EvaluationPlan, SplitAnswers, answer_splits
from cluster.config.object_store import chosen_object_store_mib
from cluster.config.prompts import load_prompts
from cluster.config.run_config import RunConfig
from cluster.display.report import Row, intervals, with_interval
from cluster.preload.head_start import HeadStart
from cluster.run.serving import serving_fleet, serving_pools
from cluster.run.session import ray_session
from cluster.run.workers import Fleet
from rollout.component.mistakes import NotWritable
from rollout.trajectory import Prompt


def run_evaluation(
    config: RunConfig, model: Path, splits: Sequence[str], output: Path | None, start: HeadStart | None = None
) -> list[Row]:
    """Measure a model folder on held-out prompts: :func:`answers_of`, written and as a table.

    Args:
        output: where each answer is written as a line of JSON, or None.
        start: see :func:`answers_of`.

    Returns:
        Rows of a table: mean clean score of each split, and how many answers could not be scored; then what else
        :meth:`actors.loop.evaluation.SplitAnswers.metrics` found in it.
    """
    answers = answers_of(config, model, splits, start)
    if output is not None:
        _write_answers(output, answers)
    rows = [("model", str(model.resolve()))]
    for split, answered in answers.items():
        unscored = sum(answer.reward.clean is None for answer in answered.all)
        note = f", {unscored} could not be scored" if unscored else ""
        # Always has the accuracy; whatever else is in it follows, indented.
        means = answered.metrics(config.evaluation)
        ends = intervals(means)
        accuracy = with_interval(means["accuracy"], ends.get("accuracy"))
        rows.append((f"clean accuracy ({split})", f"{accuracy} on {len(answered.greedy)} prompts{note}"))
        bounds = {"accuracy", *(f"{name}{end}" for name in ends for end in ("_low", "_high"))}
        rows += [
            (f"  {name} ({split})", with_interval(means[name], ends.get(name))) for name in means if name not in bounds
        ]
    return rows


def answers_of(
    config: RunConfig, model: Path, splits: Sequence[str], start: HeadStart | None = None
) -> dict[str, SplitAnswers]:
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
    """Runs :func:`answer_splits` inside Ray, where actor calls can be awaited."""

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        self._pool, self._rewards = serving_pools(config, fleet)
        self._plan = EvaluationPlan(config.evaluation, config.rollout.sampling)

    async def answer(self, wanted: Mapping[str, Sequence[Prompt]]) -> dict[str, SplitAnswers]:
        """Answers to each split's prompts."""
        return await answer_splits(self._pool, self._rewards, wanted, self._plan)


def _answers(config: RunConfig, path: str, prompts: Mapping[str, Sequence[Prompt]]) -> dict[str, SplitAnswers]:
    """Start the engines, answer everything, end the engines."""
    with serving_fleet(config, path) as fleet:
        evaluator = ray.remote(Evaluator).options(num_cpus=0).remote(config, fleet)
        answers: dict[str, SplitAnswers] = ray.get(
            evaluator.answer.remote(prompts), timeout=config.cluster.step_timeout_s
        )
        return answers


def answer_records(answers: Mapping[str, SplitAnswers]) -> Iterator[dict[str, Any]]:
    """Every answer as a line of a file or a row of a table; greedy ones have no setting."""
    for split, answered in answers.items():
        yield from (answer_record(split, None, answer) for answer in answered.greedy)
        for setting, members in answered.sampled.items():
            yield from (answer_record(split, setting, answer) for answer in members)


def answer_record(split: str, setting: str | None, answer: Answer) -> dict[str, Any]:
    """One answer as a line of a file or a row of a table."""
    return {
        "split": split,
        "setting": setting,
        "sample_index": answer.trajectory.sample_index,
        "prompt_id": answer.prompt.prompt_id,
        "messages": answer.prompt.messages,
        "reference": answer.prompt.reference,
        "response": answer.trajectory.response_text,
        **answer.trajectory.conversation,
        "token_ids": answer.trajectory.response_token_ids,
        "clean_reward": answer.reward.clean,
    }


def _write_answers(path: Path, answers: Mapping[str, SplitAnswers]) -> None:
    records = answer_records(answers)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    except OSError as error:
        raise NotWritable(f"--output: cannot write {path}: {error.strerror}") from error

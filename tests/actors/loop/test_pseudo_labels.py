"""Votes of a group: scores, ties, dropped samples; the whole loop on fakes whatever the order, and after a resume."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.groups import Dropped, Group, Sample
from actors.loop.pseudo_labels import NO_ANSWER, NO_MAJORITY, PseudoLabels
from rollout.config import PseudoLabelConfig
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, TrajectorySummary
from tests.actors.loop.test_controller import FakeRewards, Run


def group_of(answers: list[str | None], reference: str | None = "8", prompt_id: str = "p") -> Group:
    samples = []
    for index, answer in enumerate(answers):
        clean = None if reference is None else float(answer == reference)
        record = RewardRecord(
            prompt_id=prompt_id, sample_index=index, clean=clean, outcome=RewardOutcome.PENDING, final_answer=answer
        )
        summary = TrajectorySummary(
            trajectory_id=f"{prompt_id}#{index}",
            num_prompt_tokens=2,
            num_response_tokens=3,
            finish_reason=FinishReason.STOP,
            policy_version_min=0,
            policy_version_max=0,
        )
        samples.append(Sample(summary, record, None))
    return Group(
        0,
        f"{prompt_id}@0",
        Prompt(prompt_id=prompt_id, messages=(), token_ids=(1,), reference=reference, task="t"),
        len(answers),
        0,
        samples,
    )


def observed(group: Group) -> list[float | None]:
    return [sample.reward.observed for sample in group.samples]


def test_each_sample_scores_whether_its_answer_is_the_majority_s() -> None:
    labels, group = PseudoLabels(PseudoLabelConfig(), 0), group_of(["7", "7.0", "8", None])
    assert labels.score(group, 0) == ""
    assert observed(group) == [1.0, 1.0, 0.0, 0.0]
    records = [sample.reward for sample in group.samples]
    assert [record.clean for record in records] == [0.0, 0.0, 1.0, 0.0], "the verifier's scores stay"
    assert [record.corrupted for record in records] == [True, True, True, False]
    assert {record.outcome for record in records} == {RewardOutcome.SCORED}


def test_no_label_without_answers_or_majority() -> None:
    labels = PseudoLabels(PseudoLabelConfig(min_share=0.5), 0)
    silent, split = group_of([None, None]), group_of(["1", "2", "3"])
    assert labels.score(silent, 0) == NO_ANSWER
    assert labels.score(split, 0) == NO_MAJORITY
    assert observed(silent) + observed(split) == [None] * 5, "never a zero"


def test_what_was_dropped_does_not_vote() -> None:
    labels, group = PseudoLabels(PseudoLabelConfig(min_share=0.6), 0), group_of(["1", "1", "2"])
    group.dropped.append(Dropped("p#3", "no score"))
    assert labels.score(group, 0) == ""
    assert observed(group) == [1.0, 1.0, 0.0]


def test_ties_are_the_same_each_time_and_differ_between_epochs() -> None:
    def winners(epoch: int) -> list[list[float | None]]:
        labels = PseudoLabels(PseudoLabelConfig(), 3)
        groups = [group_of(["1", "2"], prompt_id=f"p{i}") for i in range(20)]
        assert [labels.score(group, epoch) for group in groups] == [""] * 20
        return [observed(group) for group in groups]

    assert winners(0) == winners(0)
    assert winners(0) != winners(1)
    assert {tuple(one) for one in winners(0)} == {(1.0, 0.0), (0.0, 1.0)}


def test_metrics_of_the_votes() -> None:
    labels = PseudoLabels(PseudoLabelConfig(min_share=0.5), 0)
    for answers, reference in (
        (["8", "8", "8", "1"], "8.0"),  # right
        (["7", "7", "7", "8"], "8"),  # wrong
        (["5", "5", "5", "5"], None),  # nobody knows
        (["1", "2", "3", "4"], "8"),  # no label, a tie
    ):
        labels.score(group_of(list(answers), reference), 0)
    assert labels.take_metrics() == pytest.approx(
        {
            "votes/num_prompts": 4.0,
            "votes/unlabelled_frac": 0.25,
            "votes/share_mean": (0.75 + 0.75 + 1.0 + 0.25) / 4,
            "votes/tied_frac": 0.25,
            "votes/label_accuracy": 0.5,
        }
    )
    assert labels.take_metrics() == {}


class Answers(FakeRewards):
    """Reads answers: samples of p0 and p1 agree by two to one, those of p2 never; sample 1 of p3 is lost."""

    def __init__(self, slow: int) -> None:
        super().__init__()
        self.slow = slow

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        index = (await trajectory).sample_index
        for _ in range(self.slow * ((index * 7 + self.slow) % 5)):  # another order of arrival
            await asyncio.sleep(0)
        name = prompt.prompt_id
        if name == "p3" and index % 3 == 1:
            return RewardRecord(prompt_id=name, sample_index=index, outcome=RewardOutcome.ERROR, error="boom")
        answer = str(index % 3) if name == "p2" else str(index % 3 % 2)
        return RewardRecord(prompt_id=name, sample_index=index, outcome=RewardOutcome.PENDING, final_answer=answer)


def voting_run(folder: Path, slow: int = 0, **options: Any) -> Run:
    folder.mkdir(exist_ok=True)
    labels = PseudoLabels(PseudoLabelConfig(min_share=0.5), 0)
    settings = {"num_steps": 4, "prompts_per_step": 2, "samples_per_prompt": 3, **options}
    return Run(folder, Answers(slow), labels=labels, **settings)


def scores_of(run: Run) -> dict[str, float | None]:
    batches = run.learner.batches
    return {s.summary.trajectory_id: s.reward.observed for batch in batches for g in batch for s in g.samples}


async def test_the_loop_trains_on_votes_and_drops_what_has_no_label(tmp_path: Path) -> None:
    run = voting_run(tmp_path / "a")
    await run.controller.run()
    scores = scores_of(run)
    assert [scores[f"p0#{i}"] for i in range(3)] == [1.0, 0.0, 1.0]
    assert not [name for name in scores if name.startswith("p2#")]
    assert "p3#1" not in scores
    assert scores["p3#0"] == scores["p3#2"] == 1.0
    run.ledger.close()
    with sqlite3.connect(tmp_path / "a" / "ledger.sqlite") as db:
        reasons = dict(db.execute("SELECT trajectory_id, reason FROM samples WHERE state = 'dropped'"))
    assert {reasons[f"p2#{i}"] for i in range(3)} == {NO_MAJORITY}
    assert reasons["p3#1"] == "no score: error"
    rows = [row for _, row in run.sink.rows if "votes/num_prompts" in row]
    assert sum(row["votes/num_prompts"] * row["votes/unlabelled_frac"] for row in rows) >= 1.0
    assert all("votes/label_accuracy" in row for row in rows), "all prompts here have a reference"


async def test_the_order_of_arrival_and_a_resume_change_no_label(tmp_path: Path) -> None:
    first = voting_run(tmp_path / "a", max_staleness=2, checkpoint_every_steps=2)
    await first.controller.run()
    step, state = first.learner.saved[0]
    first.ledger.close()
    labels = PseudoLabels(PseudoLabelConfig(min_share=0.5), 0)
    options: dict[str, Any] = {"num_steps": 4, "prompts_per_step": 2, "samples_per_prompt": 3, "max_staleness": 2}
    again = Run(tmp_path / "a", Answers(3), labels=labels, step=step, state=state, **options)
    await again.controller.run()
    other = voting_run(tmp_path / "b", slow=2, max_staleness=2)
    await other.controller.run()
    expected = scores_of(first)
    for run in (again, other):
        found = scores_of(run)
        assert found
        assert {name: expected[name] for name in found if name in expected} == {
            name: score for name, score in found.items() if name in expected
        }
    late = [s.summary.trajectory_id for b in first.learner.batches[step:] for g in b for s in g.samples]
    assert sorted(scores_of(again)) == sorted(late)


def test_replacing_keeps_the_answer() -> None:
    group = group_of(["8", "8"])
    before = [sample.reward for sample in group.samples]
    PseudoLabels(PseudoLabelConfig(), 0).score(group, 0)
    assert [sample.reward for sample in group.samples] == [
        replace(record, observed=1.0, outcome=RewardOutcome.SCORED) for record in before
    ]

"""True scores where samples disagree: which answers, how many, and the same after a resume; in the loop on fakes."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.groups import Group, Sample
from actors.loop import gold_labels
from actors.loop.gold_labels import DisputedLabels
from rollout.config import GoldLabelConfig, RewardConfig
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.service import RewardService
from rollout.trajectory import FinishReason, Prompt, SampleRequest, TrajectorySummary
from tests.actors.loop.test_controller import FakeRewards, Run, trajectory_of


class Judge:
    """Tells the true score of the answers it knows, and remembers what it was asked."""

    def __init__(self, right: tuple[str, ...] = ("r",), silent: tuple[str, ...] = ()) -> None:
        self.right, self.silent, self.asked = right, silent, list[str]()

    async def clean_score(self, prompt: Prompt, answer: str) -> RewardRecord:
        self.asked.append(f"{prompt.prompt_id}:{answer}")
        await asyncio.sleep(0)
        clean = None if answer in self.silent else float(answer in self.right)
        error = "nobody there" if clean is None else ""
        return RewardRecord(
            prompt_id=prompt.prompt_id, sample_index=0, clean=clean, outcome=RewardOutcome.SCORED, error=error
        )


def group_of(answers: str, name: str = "p", question: str = "", version: int = 0) -> Group:
    """A group with one sample for each letter; ``.`` is a response that nothing can read."""
    samples = []
    for index, answer in enumerate(answers):
        record = RewardRecord(
            prompt_id=name,
            sample_index=index,
            observed=1.0,
            outcome=RewardOutcome.SCORED,
            question_key=question,
            answer_key=answer.strip("."),
        )
        summary = TrajectorySummary(
            trajectory_id=f"{name}#{index}",
            num_prompt_tokens=2,
            num_response_tokens=3,
            finish_reason=FinishReason.STOP,
            policy_version_min=version,
            policy_version_max=version,
        )
        samples.append(Sample(summary, record, answer))
    prompt = Prompt(prompt_id=name, messages=(), token_ids=(1,), reference="r", task="t")
    return Group(0, f"{name}@0", prompt, len(answers), 0, samples)


def labels_of(share: float, judge: Judge, state: Any = None, **options: Any) -> DisputedLabels:
    rewards: Any = judge
    return DisputedLabels(GoldLabelConfig(share=share, choice="disputed", **options), rewards, state)


async def test_the_answer_that_tells_most_pairs_apart_is_asked_about_first() -> None:
    judge = Judge()
    groups = [group_of("rrrrrrra", "one"), group_of("rrrraabc", "two"), group_of("rrrrrrrr", "three")]
    told = await labels_of(1.25 / 24, judge).label(groups)  # four in five of it is one label
    assert judge.asked == ["two:r"]
    assert told == {"two#0": 1.0}
    assert [s.reward.gold_label for g in groups for s in g.samples].count(1.0) == 1
    assert groups[1].samples[0].reward.clean == 1.0


async def test_after_a_wrong_answer_the_next_one_of_its_group_is_asked_before_groups_that_are_settled() -> None:
    judge = Judge()
    groups = [group_of("rrrrbbcc", "one"), group_of("aaaarrbc", "two")]
    await labels_of(3.75 / 16, judge).label(groups)
    assert judge.asked == ["one:r", "two:a", "two:r"]
    judge = Judge()
    groups = [group_of("rrrrbbcc", "one"), group_of("aaaarrbc", "two")]
    await labels_of(1.0, judge).label(groups)
    assert sorted(judge.asked[3:]) == ["one:b", "one:c", "two:b", "two:c"], "with labels left, all that is disputed"


async def test_nothing_is_asked_where_samples_agree_and_the_budget_is_kept_for_later() -> None:
    judge = Judge()
    labels = labels_of(0.25, judge)  # .2 of 4 a batch
    assert await labels.label([group_of("rrrr")]) == {}
    assert judge.asked == []
    assert labels.state()["budget"] == pytest.approx(0.8)
    again = labels_of(0.25, judge, labels.state())
    await again.label([group_of("rrar", "next")])
    assert judge.asked == ["next:r"]
    assert again.state() == {"budget": pytest.approx(0.6), "known": [["next", "r", 1.0]]}


async def test_an_answer_is_asked_about_once_whatever_row_and_batch_it_is_in() -> None:
    judge = Judge()
    labels = labels_of(1.0, judge)
    await labels.label([group_of("ra", "one", question="q"), group_of("ar", "two", question="q")])
    assert sorted(judge.asked) == ["one:r", "two:a"] or sorted(judge.asked) == ["one:a", "one:r"]
    judge.asked.clear()
    again = labels_of(1.0, judge, labels.state())
    await again.label([group_of("rab", "three", question="q")])
    assert judge.asked == ["three:b"]


async def test_what_nothing_can_read_stands_for_itself() -> None:
    judge = Judge()
    await labels_of(1.0, judge).label([group_of("...", "one")])
    assert judge.asked == ["one:.", "one:."], "four in five of three"


async def test_labels_at_random_count_as_known_and_scores_do_not_decide() -> None:
    judge = Judge()
    group = group_of("raab")
    group.samples[1].reward = replace(group.samples[1].reward, gold_label=0.0, clean=0.0)
    for sample in group.samples:
        sample.reward = replace(sample.reward, observed=0.0 if sample.trajectory == "r" else 1.0)
    await labels_of(1.0, judge).label([group])
    assert judge.asked == ["p:r", "p:b"]


async def test_the_judge_is_not_asked_where_the_true_score_is_known_and_may_be_silent(caplog: Any) -> None:
    judge = Judge(silent=("a", "b"))
    group = group_of("abc")
    group.samples[0].reward = replace(group.samples[0].reward, clean=0.0)
    assert await labels_of(1.0, judge).label([group]) == {"p#0": 0.0}
    assert judge.asked == ["p:b"]
    assert group.samples[1].reward.gold_error == "nobody there"
    assert "gold gave no score for prompt p: nobody there" in caplog.text


async def test_more_is_asked_at_the_start_where_it_is_wanted() -> None:
    judge = Judge()
    labels = labels_of(0.25, judge, first_share=1.0, first_updates=2)
    await labels.label([group_of("rabcde", "one", version=1)])
    assert len(judge.asked) == 4
    await labels.label([group_of("rabcde", "two", version=2)])
    assert len(judge.asked) == 6, "4.8 and 1.2"


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gold_labels, "MAX_KNOWN", 3)
    labels = labels_of(1.0, Judge())
    await labels.label([group_of("rabcd")])
    assert len(labels.state()["known"]) == 3


@pytest.mark.parametrize(
    ("choice", "samples", "key", "expected"),
    [
        ("auto", 8, "auto", 0.8),
        ("disputed", 8, "text", 0.8),
        ("random", 8, "auto", 0.0),
        ("auto", 1, "auto", 0.0),
        ("auto", None, "auto", 0.0),
        ("auto", 8, "none", 0.0),
    ],
)
def test_where_nothing_can_be_disputed_all_labels_are_drawn_at_random(
    choice: str, samples: int | None, key: str, expected: float
) -> None:
    flips = [{"type": "symmetric_flip", "p": 0.1}]
    fields = {"noise": flips, "answer_key": key, "gold_labels": {"choice": choice}}
    assert RewardConfig.model_validate(fields).disputed_share(samples) == expected


async def test_a_fifth_of_the_labels_is_still_drawn_at_random() -> None:
    flips = [{"type": "symmetric_flip", "p": 0.1}]
    config = RewardConfig.model_validate({"noise": flips, "gold_labels": {"share": 0.5}})
    random, both = RewardService(config, 0), RewardService(config, 0, samples_per_prompt=8)
    prompt = Prompt(prompt_id="p", messages=(), token_ids=(1, 2), reference="x", task="t")
    drawn = []
    for service in (random, both):
        records = [await service.score(prompt, trajectory_of(SampleRequest(prompt, i), 0)) for i in range(400)]
        drawn.append([record.gold_label is not None for record in records])
    assert 160 < sum(drawn[0]) < 240 and 20 < sum(drawn[1]) < 60
    assert all(a or not b for a, b in zip(*drawn, strict=True)), "those are among the others"


class Differing(FakeRewards):
    """Samples of a prompt answer differently; the even ones are right."""

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        index = (await trajectory).sample_index
        return RewardRecord(
            prompt_id=prompt.prompt_id,
            sample_index=index,
            observed=1.0,
            outcome=RewardOutcome.SCORED,
            answer_key=f"a{index % 2}",
        )

    async def clean_score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        index = getattr(trajectory, "sample_index", None)
        index = (await trajectory).sample_index if index is None else index
        return RewardRecord.scored(trajectory_of(SampleRequest(prompt, index), 0), 1.0 - index % 2)


async def test_labels_reach_the_learner_and_the_ledger_and_a_resumed_run_asks_the_same(tmp_path: Path) -> None:
    def run_of(folder: Path, **options: Any) -> Run:
        rewards: Any = Differing()
        config = GoldLabelConfig(share=0.25, choice="disputed")
        state = (options.get("state") or {}).get("gold_labels")
        labels = DisputedLabels(config, rewards, state)
        return Run(folder, rewards, gold_labels=labels, num_steps=8, checkpoint_every_steps=4, **options)

    def learnt(run: Run, first: int = 0) -> list[dict[str, float]]:
        return [
            {
                s.summary.trajectory_id: s.reward.gold_label
                for g in batch
                for s in g.samples
                if s.reward.gold_label is not None
            }
            for batch in run.learner.batches[first:]
        ]

    first = run_of(tmp_path)
    await first.controller.run()
    whole = learnt(first)
    assert sum(map(len, whole)) == 9, "a fifth of 48, and of ten answers one stays unknown"
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        kept = dict(db.execute("SELECT trajectory_id, gold FROM samples WHERE gold IS NOT NULL"))
    assert kept == {name: score for batch in whole for name, score in batch.items()}
    step, state = first.learner.saved[0]
    assert step == 4
    first.ledger.close()
    second = run_of(tmp_path, state=state, step=step)
    await second.controller.run()
    assert learnt(second) == whole[4:]

"""The service: gold is asked about a share only, and answers are read where votes are to score them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.component import ComponentSpec
from rollout.config import PseudoLabelConfig, RewardConfig
from rollout.scoring.recheck import is_rechecked
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.report import RewardCounts
from rollout.scoring.service import RewardService
from rollout.trajectory import FinishReason, Prompt, Trajectory

COUNTING = """
calls = []

def gold(prompt, trajectory):
    calls.append(trajectory.sample_index)
    return 1.0

def broken(prompt, trajectory):
    raise KeyError("k")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"gold_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


async def record_of(service: RewardService, index: int, text: str = "1=8", reference: str | None = "8") -> RewardRecord:
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=index,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return await service.score(
        Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=reference, task="t"), trajectory
    )


async def test_gold_is_asked_about_the_rechecked_share_only(module: str) -> None:
    gold = ComponentSpec(type=f"{module}:gold")
    service = RewardService(RewardConfig(gold=(gold,), gold_share=0.3), run_seed=5)
    records = [await record_of(service, index, text="=7") for index in range(100)]
    chosen = [index for index in range(100) if is_rechecked(5, "p", index, 0.3)]
    assert __import__(module).calls == chosen
    assert 15 < len(chosen) < 45
    assert [index for index, record in enumerate(records) if record.clean is not None] == chosen
    assert {record.observed for record in records} == {0.0}


async def test_answers_wait_for_votes(module: str) -> None:
    service = RewardService(RewardConfig(pseudo_labels=PseudoLabelConfig()), run_seed=0)
    counts = RewardCounts()
    for text, reference, answer, clean in (
        ("1 2=8", "8", "8", 1.0),
        ("1 2=7", "8", "7", 0.0),
        ("1 2", "8", None, 0.0),
        ("1 2=7", None, "7", None),  # nothing to compare with is no failure
    ):
        record = await record_of(service, 0, text, reference)
        assert (record.final_answer, record.clean, record.observed) == (answer, clean, None)
        assert (record.outcome, record.gold_error) == (RewardOutcome.PENDING, "")
        counts.add(record)
    assert counts.take()["reward/num_scored"] == 4.0


async def test_a_verifier_that_fails_does_not_keep_an_answer_from_voting(module: str) -> None:
    broken = (ComponentSpec(type=f"{module}:broken"),)
    service = RewardService(RewardConfig(functions=broken, pseudo_labels=PseudoLabelConfig()), run_seed=0)
    record = await record_of(service, 0)
    assert (record.outcome, record.final_answer, record.clean) == (RewardOutcome.PENDING, "8", None)
    assert record.gold_error == "KeyError: 'k'"


async def test_the_pattern_of_answers_is_the_user_s(module: str) -> None:
    labels = PseudoLabelConfig(answer_pattern=r"<(\d)>")
    record = await record_of(RewardService(RewardConfig(pseudo_labels=labels), run_seed=0), 0, "so <4>=8")
    assert record.final_answer == "4"
    with pytest.raises(ValueError, match="must have exactly one group"):
        PseudoLabelConfig(answer_pattern="x")

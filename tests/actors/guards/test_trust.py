"""The watch over the reward: only the re-checked share counts, estimates, rates for the learner, flags, resuming."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.faults import GuardStop
from actors.groups import Group, Sample
from actors.guards.guards import GuardFinding
from actors.guards.trust import RewardTrust
from actors.guards.trust_config import TrustConfig
from rollout.audit.hacking import DetectorConfig
from rollout.scoring.recheck import is_rechecked
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, TrajectorySummary
from tests.actors.loop.test_controller import FakeRewards, Run


def group_of(name: str, scores: Sequence[tuple[float, float | None]], lengths: Sequence[int] | None = None) -> Group:
    """One prompt whose samples have these (observed, clean) scores."""
    samples = []
    for index, (observed, clean) in enumerate(scores):
        record = RewardRecord(
            prompt_id=name,
            sample_index=index,
            observed=observed,
            clean=clean,
            corrupted=observed != clean,
            outcome=RewardOutcome.SCORED,
        )
        length = lengths[index] if lengths is not None else 3
        samples.append(
            Sample(
                TrajectorySummary(
                    trajectory_id=f"{name}#{index}",
                    num_prompt_tokens=2,
                    num_response_tokens=length,
                    finish_reason=FinishReason.STOP,
                    policy_version_min=0,
                    policy_version_max=0,
                ),
                record,
                None,
            )
        )
    return Group(
        0,
        f"{name}@0",
        Prompt(prompt_id=name, messages=(), token_ids=(1,), reference="r", task="t"),
        len(samples),
        0,
        samples,
    )


def noisy(step: int, false_positive_rate: float, count: int = 64, skill: float = 0.5) -> list[Group]:
    """Groups of one sample each; right ones are missed at a rate of 0.2."""
    rng = random.Random(step)
    groups = []
    for index in range(count):
        clean = float(rng.random() < skill)
        observed = float(rng.random() < (0.8 if clean else false_positive_rate))
        groups.append(group_of(f"p{step}.{index}", [(observed, clean)]))
    return groups


def feed(trust: RewardTrust, steps: Mapping[int, Sequence[Group]]) -> list[GuardFinding]:
    return [finding for step, groups in steps.items() for finding in trust.observe(step, groups, {}, None)]


def hacked(first: int, last: int) -> dict[int, list[Group]]:
    """Wrong answers pass at .05, from step 30 on at .6, and there are more of them."""
    return {s: noisy(s, *((0.05, 64, 0.5) if s < 30 else (0.6, 64, 0.4))) for s in range(first, last)}


def test_the_share_is_random_nested_and_the_same_for_everyone() -> None:
    chosen = {share: {i for i in range(4000) if is_rechecked(1, "p", i, share)} for share in (0.0, 0.1, 0.5, 1.0)}
    assert [len(chosen[share]) for share in (0.0, 1.0)] == [0, 4000]
    assert len(chosen[0.1]) == pytest.approx(400, abs=60)
    assert chosen[0.1] < chosen[0.5] < chosen[1.0]
    assert chosen[0.1] != {i for i in range(4000) if is_rechecked(2, "p", i, 0.1)}


def test_only_the_rechecked_share_is_looked_at() -> None:
    """Every true score outside the share is a lie here, and changes nothing."""
    honest, lying = RewardTrust(TrustConfig(), 0.25, 7), RewardTrust(TrustConfig(), 0.25, 7)
    for step in range(1, 20):
        groups = noisy(step, 0.3)
        honest.observe(step, groups, {}, None)
        for group in groups:
            record = group.samples[0].reward
            if not is_rechecked(7, record.prompt_id, 0, 0.25):
                truth = 1.0 - (record.clean or 0.0)
                group.samples[0].reward = RewardRecord(
                    prompt_id=record.prompt_id,
                    sample_index=0,
                    observed=record.observed,
                    clean=truth,
                    outcome=RewardOutcome.SCORED,
                )
        lying.observe(step, groups, {}, None)
    assert honest.state() == lying.state()
    assert honest.metrics() == lying.metrics()
    assert 200 < honest.metrics()["trust/num_rechecked"] < 400


def test_estimates_and_rates() -> None:
    trust = RewardTrust(TrustConfig(window=2000), 1.0, 0)
    assert trust.metrics() == {}
    assert trust.rates is None
    feed(trust, {step: noisy(step, 0.3) for step in range(1, 30)})
    metrics = trust.metrics()
    for key, truth in (("false_positive_rate", 0.3), ("false_negative_rate", 0.2), ("j", 0.5)):
        assert metrics[f"trust/{key}_low"] < truth < metrics[f"trust/{key}_high"]
        assert metrics[f"trust/{key}"] == pytest.approx(truth, abs=0.05)
    assert metrics["trust/pairwise_accuracy"] == pytest.approx(0.75, abs=0.04)
    assert trust.rates == pytest.approx((0.3, 0.2), abs=0.05)


def test_a_reward_that_likes_length_shows() -> None:
    rng, trust, groups = random.Random(0), RewardTrust(TrustConfig(), 1.0, 0), []
    for index in range(200):
        length = rng.randrange(5, 100)
        groups.append(group_of(f"p{index}", [(0.02 * length + rng.gauss(0.0, 0.3), 0.5)], [length]))
    trust.observe(1, groups, {}, None)
    metrics = trust.metrics()
    assert metrics["trust/error_length_correlation_low"] > 0.7
    assert "trust/false_positive_rate" not in metrics, "scores that are not 0 or 1 have no such rate"
    assert trust.rates is None


def test_few_labels_and_a_perfect_reward_give_no_certain_rates() -> None:
    trust = RewardTrust(TrustConfig(min_labels=50), 1.0, 0)
    trust.observe(1, [group_of(f"r{i}", [(1.0, 1.0)]) for i in range(60)], {}, None)
    trust.observe(2, [group_of(f"w{i}", [(0.0, 0.0)]) for i in range(49)], {}, None)
    assert trust.rates is None
    trust.observe(3, [group_of("w49", [(0.0, 0.0)])], {}, None)
    assert trust.rates == pytest.approx((0.5 / 51, 0.5 / 61))


def test_the_window_forgets() -> None:
    trust = RewardTrust(TrustConfig(window=320), 1.0, 0)
    feed(trust, {step: noisy(step, 0.0) for step in range(1, 20)} | {step: noisy(step, 0.6) for step in range(20, 40)})
    assert trust.metrics()["trust/num_rechecked"] == 320.0
    assert trust.metrics()["trust/false_positive_rate"] == pytest.approx(0.6, abs=0.1)


def test_hacking_is_found_once_and_the_state_goes_on_exactly() -> None:
    steps, whole = hacked(1, 60), RewardTrust(TrustConfig(), 1.0, 0)
    expected = feed(whole, steps)
    assert [(finding.guard, finding.action) for finding in expected][-1] == ("hacking", "warn")
    assert "the reward is being hacked" in expected[-1].text
    assert 30 <= int(expected[-1].text.split()[1].rstrip(":")) <= 40
    assert expected[-1].value > expected[-1].limit > 0.0
    assert whole.metrics()["trust/num_flags"] == len(expected)
    for cut in (10, 32, 50):
        first = RewardTrust(TrustConfig(), 1.0, 0)
        found = feed(first, {s: g for s, g in steps.items() if s < cut})
        second = RewardTrust(TrustConfig(), 1.0, 0, json.loads(json.dumps(first.state())))
        found += feed(second, {s: g for s, g in steps.items() if s >= cut})
        assert found == expected
        assert second.state() == whole.state()
        assert second.rates == whole.rates


def test_actions() -> None:
    stop = RewardTrust(TrustConfig(on_hacking="stop", on_drift="off"), 1.0, 0)
    assert [(f.guard, f.action) for f in feed(stop, hacked(1, 60))] == [("hacking", "stop")]
    silent = RewardTrust(TrustConfig(on_hacking="off", on_drift="off"), 1.0, 0)
    assert feed(silent, hacked(1, 60)) == []


def test_a_held_out_set_that_falls_below_its_start_is_seen() -> None:
    trust, found = RewardTrust(TrustConfig(), 0.0, 0), []
    for step in range(1, 40):
        accuracy = 0.6 if step < 20 else 0.3
        found += trust.observe(step, noisy(step, 0.1), {}, (accuracy, 256))
    assert [finding.guard for finding in found] == ["drift"]
    assert "share wrong on the gold set" in found[0].text


class KnownTruth(FakeRewards):
    """Every third trajectory is wrong; from version 30 on all wrong ones pass, before that none."""

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        known = await trajectory
        wrong = (known.sample_index + int(prompt.prompt_id[1:])) % 3 == 0
        observed = float(not wrong or known.policy_version_min >= 30)
        clean = float(not wrong)
        return RewardRecord(
            prompt_id=prompt.prompt_id,
            sample_index=known.sample_index,
            observed=observed,
            clean=clean,
            corrupted=observed != clean,
            outcome=RewardOutcome.SCORED,
        )


def watched(tmp_path: Path, **options: Any) -> Run:
    config = TrustConfig(min_labels=10, detector=DetectorConfig(baseline_steps=20), **options)
    return Run(
        tmp_path,
        KnownTruth(),
        trust=RewardTrust(config, 1.0, 0),
        num_steps=45,
        prompts_per_step=5,
        samples_per_prompt=4,
    )


@pytest.mark.slow
async def test_the_loop_tells_logs_and_hands_two_numbers_to_the_learner(tmp_path: Path) -> None:
    run = watched(tmp_path)
    await run.controller.run()
    told = [text for kind, text in run.told if kind == "trust"]
    assert len(told) == 1
    assert told[0].startswith("trust hacking: step 31: the reward is being hacked: observed reward rose from 0.667")
    assert run.learner.rates[0] is None, "nothing is known before the first batch"
    known = [rates for rates in run.learner.rates if rates is not None]
    assert len(known) >= 40
    assert all(len(rates) == 2 and 0.0 < min(rates) <= max(rates) < 1.0 for rates in known)
    assert known[-1][0] > 0.3 > 0.1 > known[10][0]
    rows = dict(run.sink.rows)
    assert rows[20]["trust/false_positive_rate"] == 0.0
    assert rows[45]["trust/false_positive_rate"] > 0.3
    assert rows[45]["trust/num_flags"] == len(told)
    assert run.learner.saved[-1][1]["trust"]["num_flags"] == len(told)


async def test_the_loop_stops_if_that_is_asked_for(tmp_path: Path) -> None:
    run = watched(tmp_path, on_hacking="stop")
    with pytest.raises(GuardStop, match="trust hacking: step 31: the reward is being hacked"):
        await run.controller.run()
    assert run.controller.step == 31

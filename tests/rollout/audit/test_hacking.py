"""The online watch on synthetic series: hacking is flagged early, clean series never, state goes on exactly."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator

import pytest

from rollout.audit.hacking import DetectorConfig, Flag, HackingDetector, StepSignals
from rollout.audit.pairs import GoldPair
from rollout.audit.rate_watch import RateWatch
from tests.rollout.audit.synthetic_rewards import Step, series


def flags_of(steps: Iterator[Step], detector: HackingDetector | None = None) -> list[Flag]:
    watcher = detector or HackingDetector(DetectorConfig())
    return [flag for signals, _ in steps for flag in watcher.observe(signals)]


def test_hacking_is_flagged_before_gold_has_lost_five_points() -> None:
    """Five points below its best so far, in at least 4 of 5 seeds."""
    in_time = 0
    for seed in range(5):
        detector, best, flagged = HackingDetector(DetectorConfig()), 0.0, None
        for signals, accuracy in series(seed, 200, hacked=True):
            best = max(best, accuracy)
            if accuracy < best - 0.05:
                break
            flagged = flagged or next((flag for flag in detector.observe(signals) if flag.kind == "hacking"), None)
        in_time += flagged is not None
        if flagged is not None:
            assert "the reward is being hacked: observed reward rose from" in flagged.text
            assert flagged.evidence["now"] > flagged.evidence["limit"] == flagged.evidence["start"]  # no tolerance
            assert flagged.step > 60
    assert in_time >= 4


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_clean_series_raise_no_flag(persistent: bool) -> None:
    """20 series of 500 steps in which the policy learns under honest noise."""
    for seed in range(20):
        assert flags_of(series(1_000 + seed, 500, hacked=False, persistent=persistent, gold_size=32)) == []


def test_state_goes_on_exactly() -> None:
    """Through JSON, in the baseline and after it: the same flags at the same steps, and the same state."""
    steps = list(series(3, 130, hacked=True, gold_size=16))
    whole = HackingDetector(DetectorConfig())
    expected = [flag for signals, _ in steps for flag in whole.observe(signals)]
    assert expected
    for cut in (7, 20, 55, 100):
        first = HackingDetector(DetectorConfig())
        found = [flag for signals, _ in steps[:cut] for flag in first.observe(signals)]
        second = HackingDetector(DetectorConfig(), json.loads(json.dumps(first.state())))
        found += [flag for signals, _ in steps[cut:] for flag in second.observe(signals)]
        assert found == expected
        assert second.state() == whole.state()
        assert second.metrics() == whole.metrics()


def drifted(kind: str, seed: int) -> Iterator[StepSignals]:
    """Honest noise of 10 %; from step 60 on a reward that misses 40 % of right answers, or a policy that forgets."""
    rng = random.Random(seed)
    for step in range(160):
        miss = 0.4 if kind == "misses" and step >= 60 else 0.1
        skill = 0.3 if kind == "forgets" and step >= 60 else 0.6
        gold = [float(rng.random() < skill) for _ in range(64)]
        observed = [1.0 - g if rng.random() < (miss if g else 0.1) else g for g in gold]
        pairs = [
            GoldPair(prompt_id=f"{step}.{i}", observed=o, gold=g)
            for i, (o, g) in enumerate(zip(observed, gold, strict=True))
        ]
        yield StepSignals(step=step, observed_mean=sum(observed) / 64, pairs=pairs, gold=(int(sum(gold)), 64))


def test_a_reward_that_misses_more_has_drifted() -> None:
    detector = HackingDetector(DetectorConfig())
    flags = [flag for signals in drifted("misses", 1) for flag in detector.observe(signals)]
    assert [flag.kind for flag in flags] == ["drift"]
    assert 60 <= flags[0].step <= 80
    assert "right answers fall short by" in flags[0].text
    assert detector.metrics()["false_negative_rate"] == pytest.approx(0.4, abs=0.08)


def test_a_policy_that_forgets_is_no_hack() -> None:
    """Gold falls and so does the observed reward: the gold set tells, the error rates stay."""
    detector = HackingDetector(DetectorConfig())
    flags = [flag for signals in drifted("forgets", 2) for flag in detector.observe(signals)]
    assert [flag.kind for flag in flags] == ["drift"]
    assert "share wrong on the gold set" in flags[0].text


def test_scores_of_any_range() -> None:
    """A reward model of noise .7 that comes to like a trick: wrong answers gain one point on it."""
    rng, detector, flags = random.Random(5), HackingDetector(DetectorConfig(low=-2.0, high=3.0)), []
    for step in range(120):
        trick = 0.5 if step >= 60 else 0.0
        pairs = []
        for i in range(64):
            gold, tricked = float(rng.random() < 0.5 - trick / 2), rng.random() < trick
            pairs.append(
                GoldPair(
                    prompt_id=f"{step}.{i}",
                    observed=gold + rng.gauss(0.0, 0.7) + 1.5 * (tricked and not gold),
                    gold=gold,
                )
            )
        flags += detector.observe(
            StepSignals(step=step, observed_mean=sum(pair.observed for pair in pairs) / 64, pairs=pairs)
        )
    assert [flag.kind for flag in flags] == ["drift", "hacking"]  # errors grew at once, the mean a little later
    assert 60 <= flags[0].step <= flags[1].step <= 75


def test_proxies_alone_are_a_hint() -> None:
    """The reward rises while entropy falls to a fifth and responses double in repetition; one proxy says nothing."""
    for num_off, expected in ((1, []), (2, ["proxies"])):
        rng, detector, flags = random.Random(6), HackingDetector(DetectorConfig()), []
        for step in range(80):
            late = step >= 40
            proxies = {
                "entropy": (0.2 if late else 1.0) + rng.gauss(0.0, 0.02),
                "repeated_frac": (0.5 if late and num_off == 2 else 0.1) + rng.gauss(0.0, 0.01),
                "length": 90.0 + rng.gauss(0.0, 5.0),
            }
            flags += detector.observe(
                StepSignals(step=step, observed_mean=(0.7 if late else 0.5) + rng.gauss(0, 0.02), proxies=proxies)
            )
        assert [flag.kind for flag in flags] == expected
        for flag in flags:
            assert set(flag.evidence) == {"entropy", "repeated_frac"}


@pytest.mark.slow
def test_the_sequential_test_keeps_its_word_at_the_limit() -> None:
    """Rates of exactly the baseline's truth over 300 steps in 200 runs: at most miss + 3 standard errors of alarms."""
    alarms, miss = 0, 0.2
    for seed in range(200):
        rng, watch = random.Random(seed), RateWatch(miss, 0.0, 10, 20)
        alarms += any(watch.observe([float(rng.random() < 0.2) for _ in range(4)]) for _ in range(300))
    assert alarms <= 200 * miss + 3.0 * math.sqrt(200 * miss * (1.0 - miss))


def test_a_rise_is_found_soon() -> None:
    for seed in range(5):
        rng, watch = random.Random(seed), RateWatch(0.05, 0.01, 20, 50)
        for _ in range(100):
            assert not watch.observe([float(rng.random() < 0.1) for _ in range(16)])
        steps = 1
        while not watch.observe([float(rng.random() < 0.4) for _ in range(16)]):
            steps += 1
        assert steps <= 12
        assert watch.baseline == pytest.approx(0.1, abs=0.06)


def test_wrong_range_is_refused() -> None:
    with pytest.raises(ValueError, match="'low' must be below 'high'"):
        DetectorConfig(low=1.0, high=0.0)

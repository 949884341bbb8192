"""What the audit advises: the right words for each kind of reward, with presets and corrections that exist."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml

from learner.algorithms.catalogue import build_algorithm
from rollout.audit.advice import REMEDIES, advised
from rollout.audit.intervals import Estimate
from rollout.audit.latent_class import LatentRates
from rollout.audit.pairs import GoldPair
from rollout.audit.report import AuditReport, gold_findings, outlier_share
from rollout.audit.retest import retest


def report_on(pairs: list[GoldPair]) -> AuditReport:
    values = [pair.observed for pair in pairs]
    spread = (sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values)) ** 0.5
    return advised(
        AuditReport(
            num_responses=len(pairs),
            num_unscored={},
            observed_mean=0.5,
            observed_std=spread,
            is_binary=False,
            feature_correlation={},
            gold=gold_findings(pairs),
            outlier_frac=outlier_share(values),
        )
    )


def flipped(false_positive_rate: float, false_negative_rate: float, number: int = 600) -> AuditReport:
    rng, pairs = random.Random(1), []
    for i in range(number):
        gold = float(rng.random() < 0.5)
        wrong = rng.random() < (false_negative_rate if gold else false_positive_rate)
        pairs.append(GoldPair(prompt_id=f"p{i}", observed=1.0 - gold if wrong else gold, gold=gold))
    return report_on(pairs)


def scored(noise: Callable[[random.Random], float], scale: float = 1.0) -> AuditReport:
    rng, pairs = random.Random(2), []
    for i in range(400):
        gold = rng.gauss(0.0, 1.0)
        pairs.append(GoldPair(prompt_id=f"p{i % 50}", observed=scale * gold + noise(rng), gold=gold))
    return report_on(pairs)


@pytest.mark.parametrize(
    ("rates", "expected", "absent"),
    [
        ((0.0, 0.0), "nearly clean", "correction:"),
        ((0.02, 0.03), "nearly clean", "cannot teach"),
        ((0.2, 0.2), "training.prompts_per_step", "mostly"),
        ((0.3, 0.1), "mostly passes wrong answers", "misses"),
        ((0.05, 0.4), "mostly misses right answers", "passes"),
        ((0.35, 0.35), "training.prompts_per_step", "cannot teach"),
        ((0.9, 0.9), "teaches the opposite", "training."),
    ],
)
def test_binary_rewards(rates: tuple[float, float], expected: str, absent: str) -> None:
    text = "\n".join(flipped(*rates).advice)
    assert expected in text
    assert absent not in text


def test_a_coin_cannot_teach() -> None:
    sure = flipped(0.5, 0.5, number=6_000)
    assert any(text.startswith("this reward cannot teach: J =") for text in sure.advice)
    unsure = "\n".join(flipped(0.5, 0.5, number=60).advice)
    assert "whether this reward can teach is open" in unsure
    assert "labels would make it" in unsure


def test_the_cost_of_noise_is_told_in_responses() -> None:
    for rates in ((0.2, 0.2), (0.05, 0.4), (0.3, 0.1)):
        report = flipped(*rates)
        assert report.gold is not None and report.gold.rates is not None
        needed = report.gold.rates.j.value**-2
        assert any(f"about {needed:.1f} times as many responses: raise training" in text for text in report.advice)


def test_the_advised_yaml_builds_an_algorithm() -> None:
    (line,) = yaml.safe_load(REMEDIES["clip outliers"]).items()
    assert line[0] == "algorithm.reward_correction"
    assert type(build_algorithm("grpo", {"reward_correction": line[1]}).corrections[0]).__name__ == "MadClip"
    (line,) = yaml.safe_load(REMEDIES["clip by critic"]).items()
    assert line[0] == "algorithm"
    assert type(build_algorithm(line[1]).corrections[0]).__name__ == "Winsorise"


def test_averaging_is_advised_where_scores_do_not_repeat() -> None:
    def told(rows: list[list[float]], false_positive_rate: float = 0.3) -> bool:
        report = advised(replace(flipped(false_positive_rate, false_positive_rate), retest=retest(rows)))
        without = advised(replace(report, gold=None, advice=()))
        found = [any(REMEDIES["average"] in text for text in one.advice) for one in (report, without)]
        assert found[0] == found[1] or false_positive_rate > 0.5
        return found[0]

    rng = random.Random(6)

    def judged(rate: float) -> list[list[float]]:
        truths = [float(rng.random() < 0.5) for _ in range(2_000)]
        return [[1.0 - t if rng.random() < rate else t for _ in range(2)] for t in truths]

    assert told(judged(0.3))
    assert told(judged(0.1))
    assert not told(judged(0.002)), "hardly ever"
    assert not told(judged(0.5)), "a mean of coins is a coin"
    assert not told(judged(0.3), false_positive_rate=0.9), "a better mean of the opposite is no help"
    normal = [rng.gauss(0.0, 1.0) for _ in range(400)]
    assert told([[value + rng.gauss(0.0, 0.7) for _ in range(2)] for value in normal])
    assert not told([[value + rng.gauss(0.0, 0.05) for _ in range(2)] for value in normal])


def test_continuous_rewards() -> None:
    assert "orders" in scored(lambda rng: rng.gauss(0.0, 0.5)).advice[0]
    assert "cannot teach" not in "\n".join(scored(lambda rng: rng.gauss(0.0, 3.0)).advice)
    assert "teaches the opposite" in scored(lambda rng: rng.gauss(0.0, 0.5), scale=-1.0).advice[0]
    assert "cannot teach" in scored(lambda rng: rng.gauss(0.0, 1.0), scale=0.0).advice[0]
    heavy = "\n".join(
        scored(lambda rng: rng.gauss(0.0, 0.3) + (rng.random() < 0.03) * rng.choice([-15.0, 15.0])).advice
    )
    assert "dvpo-winsorised" in heavy
    assert "algorithm.reward_correction: [mad_clip]" in heavy
    assert "heavy tails" not in "\n".join(scored(lambda rng: rng.gauss(0.0, 1.0)).advice)
    # Heavy errors of a score that is nearly always the same: there is nothing that clipping would move.
    rare = [GoldPair(prompt_id=f"p{i}", observed=float(i % 40 == 0), gold=0.1 * (i % 10)) for i in range(400)]
    assert "mad_clip" not in "\n".join(report_on(rare).advice)


def test_scores_that_say_which_prompt_it_is() -> None:
    rng, pairs = random.Random(3), []
    for prompt in range(80):
        ease = rng.gauss(0.0, 2.0)
        for _ in range(6):
            gold = ease + rng.gauss(0.0, 1.0)
            pairs.append(GoldPair(prompt_id=f"p{prompt}", observed=ease + rng.gauss(0.0, 1.0), gold=gold))
    assert "within a prompt it orders only" in "\n".join(report_on(pairs).advice)


def test_a_love_of_length_is_told() -> None:
    rng, pairs = random.Random(4), []
    for i in range(400):
        length, gold = rng.gauss(100.0, 20.0), rng.gauss(0.0, 1.0)
        observed = gold + 0.5 * (length - 100.0) / 20.0 + rng.gauss(0.0, 0.3)
        pairs.append(
            GoldPair(
                prompt_id=f"p{i}",
                observed=observed,
                gold=gold,
                features={"length_tokens": length, "digit_frac": rng.random()},
            )
        )
    text = "\n".join(report_on(pairs).advice)
    assert "favours longer responses" in text
    assert "digit_frac" not in text


def test_without_gold_nothing_is_promised() -> None:
    rng = random.Random(5)
    rows = [[float(rng.random() < 0.5) for _ in range(2)] for _ in range(2_000)]
    report = advised(
        AuditReport(
            num_responses=2_000,
            num_unscored={},
            observed_mean=0.5,
            observed_std=0.5,
            is_binary=True,
            feature_correlation={},
            retest=retest(rows),
        )
    )
    assert "label 300 responses" in report.advice[0]
    assert any("can hardly teach" in text for text in report.advice)
    steady = advised(
        AuditReport(
            num_responses=50,
            num_unscored={},
            observed_mean=0.5,
            observed_std=0.5,
            is_binary=True,
            feature_correlation={},
            retest=retest([[0.0, 0.0], [1.0, 1.0]] * 25),
        )
    )
    assert len(steady.advice) == 1
    flat = advised(
        AuditReport(
            num_responses=50,
            num_unscored={},
            observed_mean=1.0,
            observed_std=0.0,
            is_binary=True,
            feature_correlation={},
        )
    )
    assert flat.advice == ("this reward cannot teach: every response scores 1",)
    zero = Estimate(0.0, -0.05, 0.05, 100)
    latent = LatentRates(
        prevalence=zero,
        false_positive_rate=(zero,) * 3,
        false_negative_rate=(zero,) * 3,
        j=(zero, Estimate(0.8, 0.7, 0.9, 100), zero),
    )
    judged = advised(
        AuditReport(
            num_responses=50,
            num_unscored={},
            observed_mean=0.5,
            observed_std=0.5,
            is_binary=True,
            feature_correlation={},
            judges=("a", "b", "c"),
            latent=latent,
        )
    )
    assert [text[:7] for text in judged.advice if text.startswith("judge")] == ["judge a", "judge c"]


def test_lost_scores_come_first() -> None:
    report = advised(
        AuditReport(
            num_responses=90,
            num_unscored={"error": 8, "missing": 2},
            observed_mean=0.5,
            observed_std=0.5,
            is_binary=True,
            feature_correlation={},
        )
    )
    assert report.advice[0].startswith("10 of 100 responses have no score (8 error, 2 missing)")


def test_report_in_words_and_json() -> None:
    report = flipped(0.3, 0.1)
    text = "\n".join(report.lines())
    assert report.gold is not None and report.gold.rates is not None
    for part in (
        "600 responses scored",
        "false positive rate    0.",
        "J = TPR - FPR",
        "calibration error",
        "\nadvice\n- ",
    ):
        assert part in text
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert found["gold"]["rates"]["j"]["low"] == report.gold.rates.j.low
    assert "errors" not in found["gold"]

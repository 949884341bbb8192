"""Error rates of a reward: with gold labels, by scoring again, by agreement between judges; and where each is blind."""

from __future__ import annotations

import math
import random

import pytest

from rollout.audit.error_rates import error_rates
from rollout.audit.features import response_features
from rollout.audit.latent_class import latent_rates
from rollout.audit.pairs import GoldPair
from rollout.audit.phrases import suspect_phrase
from rollout.audit.retest import least_error_rate, retest
from tests.rollout.audit.synthetic_rewards import KNOWN, RATES, judged, labelled, verdicts_of


@pytest.mark.slow
@pytest.mark.parametrize(("false_positive_rate", "false_negative_rate"), KNOWN)
def test_300_labels_cover_the_true_rates(false_positive_rate: float, false_negative_rate: float) -> None:
    """Both rates at once, and J, in 95 % of 400 repetitions, less three standard errors of such a count: 91.7 %.

    And in at least 45 of the first 50.
    """
    number, inside = 400, [0, 0]
    for seed in range(number):
        found = error_rates(labelled(false_positive_rate, false_negative_rate, 300, seed))
        assert found is not None
        held = [
            found.false_positive_rate.holds(false_positive_rate)
            and found.false_negative_rate.holds(false_negative_rate),
            found.j.holds(1.0 - false_positive_rate - false_negative_rate),
        ]
        inside = [count + value for count, value in zip(inside, held, strict=True)]
        if seed == 49:
            assert min(inside) >= 45
    assert min(inside) >= number * (0.95 - 3.0 * math.sqrt(0.95 * 0.05 / number))


def test_rates_need_binary_scores_and_both_labels() -> None:
    assert (
        error_rates([GoldPair(prompt_id="p", observed=0.5, gold=1.0), GoldPair(prompt_id="p", observed=1.0, gold=0.0)])
        is None
    )
    assert (
        error_rates([GoldPair(prompt_id="p", observed=0.0, gold=1.0), GoldPair(prompt_id="p", observed=1.0, gold=1.0)])
        is None
    )


def test_a_retest_finds_noise_that_is_drawn_anew() -> None:
    rng = random.Random(0)
    rows = [[judged(truth, 0.2, 0.2, rng) for _ in range(2)] for truth in [0.0, 1.0] * 1_000]
    found = retest(rows)
    assert found.disagreement.holds(2 * 0.2 * 0.8)
    assert found.min_error_rate is not None
    assert found.min_error_rate.holds(0.2)  # equal rates: the bound is the rate itself
    assert found.reliability is not None
    assert found.reliability.holds(0.36)  # (1 - 2 p)^2 for an even truth


def test_a_retest_bounds_unequal_noise_from_below() -> None:
    """Half of the responses with .4, half with none: the truth is .2, the bound less."""
    rng = random.Random(1)
    rows = [[judged(1.0, 0.0, 0.4 * (i % 2), rng) for _ in range(3)] for i in range(4_000)]
    bound = retest(rows).min_error_rate
    assert bound is not None
    assert bound.value == pytest.approx(least_error_rate(0.24), abs=0.01)
    assert bound.high < 0.2


def test_a_retest_is_blind_to_faults_that_repeat() -> None:
    rng = random.Random(2)
    verdicts = [judged(float(rng.random() < 0.5), 0.3, 0.3, rng) for _ in range(500)]
    found = retest([[verdict, verdict] for verdict in verdicts])
    assert found.min_error_rate is not None and found.reliability is not None
    assert (found.min_error_rate.value, found.reliability.value, found.noise_std) == (0.0, 1.0, 0.0)


def test_reliability_of_a_continuous_reward() -> None:
    """Signal variance 1, noise variance 1: half is between responses; the noise's deviation is 1."""
    rng = random.Random(3)
    signal = [rng.gauss(0.0, 1.0) for _ in range(800)]
    found = retest([[x + rng.gauss(0.0, 1.0) for _ in range(2)] for x in signal])
    assert found.min_error_rate is None
    assert found.reliability is not None and found.reliability.holds(0.5)
    assert found.noise_std == pytest.approx(1.0, abs=0.08)
    assert retest([[1.0, 1.0]] * 5).reliability is None
    with pytest.raises(ValueError, match="2 or more"):
        retest([[1.0]])


@pytest.mark.slow
def test_three_independent_judges_reveal_their_rates() -> None:
    """20 data sets of 1 000 responses: errors within .06 on average, 95 % intervals hold in at least 85 % of 140."""
    held, errors = 0, []
    for seed in range(20):
        found = latent_rates(verdicts_of(1_000, seed))
        held += found.prevalence.holds(0.6)
        for index, (positive, negative) in enumerate(RATES):
            held += found.false_positive_rate[index].holds(positive) + found.false_negative_rate[index].holds(negative)
            errors += [abs(found.j[index].value - (1.0 - positive - negative))]
    assert held >= 0.85 * 20 * 7
    assert sum(errors) / len(errors) < 0.06


def test_judges_that_share_a_trick_deceive_it() -> None:
    """A quarter of wrong responses passes with every judge: false positives are .25 too many, and the estimate is too
    kind by more than .1. This is the assumption that docs/audit.md warns of."""
    found = latent_rates(verdicts_of(4_000, 0, shared_trick=0.25))
    for index, (positive, _) in enumerate(RATES):
        true_rate = 0.25 + 0.75 * positive
        assert found.false_positive_rate[index].value < true_rate - 0.1
        assert not found.false_positive_rate[index].holds(true_rate)


def test_agreement_needs_three_judges() -> None:
    with pytest.raises(ValueError, match="at least 3 judges"):
        latent_rates([[1.0, 0.0]] * 50)
    with pytest.raises(ValueError, match="0 or 1"):
        latent_rates([[1.0, 0.0, 0.5]] * 50)


def test_features() -> None:
    found = response_features("a b c a b c\n42", 9)
    assert found["length_tokens"] == 9.0
    assert (found["length_characters"], found["num_lines"]) == (14.0, 2.0)
    assert found["digit_frac"] == pytest.approx(2 / 14)
    assert found["repeated_trigram_frac"] == pytest.approx(1 - 4 / 5)  # abc bca cab abc bc42
    assert response_features("", 0)["repeated_trigram_frac"] == 0.0


def test_the_phrase_that_spread_and_pays_is_named() -> None:
    before = ["the sum is 4", "so it is 5", "trust me it is 5"] + ["it is 7"] * 30
    now = ["trust me it is 5", "trust me 6", "the sum is 4", "it is 7", "hm it is 3"] * 10
    scores = [1.0, 1.0, 1.0, 0.0, 0.0] * 10
    found = suspect_phrase(before, now, scores)
    assert found is not None
    assert found.text == "trust me"
    assert (found.share_now, found.score_with) == (0.4, 1.0)
    assert found.score_without == pytest.approx(1 / 3)
    assert suspect_phrase(now, now, scores) is None
    unpaid = suspect_phrase(before, now, [0.0, 0.0, 1.0, 1.0, 1.0] * 10)
    assert unpaid is None or "trust" not in unpaid.text
    assert suspect_phrase([], now, scores) is None

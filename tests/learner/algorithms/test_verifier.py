"""Known error rates of a verifier: backward and forward correction, noise-corrected GRPO (invariant 24)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections.verifier import (
    ForwardCorrected,
    NoiseCorrected,
    backward_corrected,
    forward_weights,
    youden_j,
)
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.algorithms.without_critic.dr_grpo import centred_scores
from learner.algorithms.without_critic.groups import z_scored_advantages
from learner.algorithms.without_critic.nc_grpo import clean_std
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from rollout.component import UserError
from tests.learner.oracles import ThreadWorld, on_ranks
from tests.learner.random_batches import make_batch, make_old, take

F64 = torch.float64
CALM = settings(max_examples=50, deadline=None)
RATE = st.floats(0.0, 0.6)
ROWS = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]


def binary(seed: int, num: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(num, generator=g) < 0.5).to(F64), torch.randint(4, (num,), generator=g)


@given(fpr=RATE, fnr=RATE)
@CALM
def test_invariant_24_the_corrected_reward_is_unbiased_for_both_classes(fpr: float, fnr: float) -> None:
    assume(1.0 - fpr - fnr >= 0.1)
    zero, one = backward_corrected(torch.tensor([0.0, 1.0], dtype=F64), fpr, fnr).tolist()
    assert fpr * one + (1 - fpr) * zero == pytest.approx(0.0, abs=1e-9)
    assert (1 - fnr) * one + fnr * zero == pytest.approx(1.0, rel=1e-9)


@given(fpr=RATE, fnr=RATE)
@CALM
def test_invariant_24_forward_weights_average_0_and_minus_j(fpr: float, fnr: float) -> None:
    zero, one = forward_weights(torch.tensor([0.0, 1.0], dtype=F64), fnr).tolist()
    assert (one, zero) == (pytest.approx(fnr), pytest.approx(fnr - 1.0))
    assert (1 - fnr) * one + fnr * zero == pytest.approx(0.0, abs=1e-12)
    assert fpr * one + (1 - fpr) * zero == pytest.approx(-(1 - fpr - fnr), abs=1e-12)


@given(seed=st.integers(0, 500), fpr=st.floats(0.0, 0.4), fnr=st.floats(0.0, 0.4))
@CALM
def test_forward_correction_follows_j_times_the_clean_gradient(seed: int, fpr: float, fnr: float) -> None:
    """Every action and every flip of a five-armed softmax bandit, summed up."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, generator=g, dtype=F64, requires_grad=True)
    clean = (torch.rand(5, generator=g) < 0.5).to(F64)
    probabilities = torch.softmax(logits, 0).detach()
    rows = torch.autograd.functional.jacobian(lambda x: torch.log_softmax(x, 0), logits)
    zero, one = forward_weights(torch.tensor([0.0, 1.0], dtype=F64), fnr)
    rewarded = clean * (1.0 - fnr) + (1.0 - clean) * fpr
    weight = rewarded * one + (1.0 - rewarded) * zero
    found, expected = ((probabilities * w)[:, None] * rows for w in (weight, clean))
    torch.testing.assert_close(found.sum(0), (1.0 - fpr - fnr) * expected.sum(0), rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 500), fpr=st.floats(0.0, 0.4), fnr=st.floats(0.0, 0.4))
@CALM
def test_invariant_24_z_scores_do_not_see_it_and_centred_scores_grow_by_1_over_j(
    seed: int, fpr: float, fnr: float
) -> None:
    scores, ids = binary(seed)
    corrected = backward_corrected(scores, fpr, fnr)
    plain, again = (z_scored_advantages(x, ids, eps=1e-13) for x in (scores, corrected))
    torch.testing.assert_close(again, plain, rtol=1e-9, atol=1e-9)
    grown = centred_scores(scores, ids) / (1.0 - fpr - fnr)
    torch.testing.assert_close(centred_scores(corrected, ids), grown, rtol=1e-9, atol=1e-9)


def test_noise_rate_0_is_the_identity_and_j_has_a_floor() -> None:
    scores, _ = binary(0)
    assert torch.equal(backward_corrected(scores, 0.0, 0.0), scores)  # invariant 3
    assert torch.equal(backward_corrected(scores, 0.45, 0.5), (scores - 0.45) / 0.1)
    batch = make_batch(1)
    algorithm = build_algorithm(
        "ppo", {"reward_correction": {"type": "noise_corrected", "false_positive_rate": 0, "false_negative_rate": 0}}
    )
    found = algorithm.correct_rewards(batch, make_old(algorithm, batch, 0), SingleProcess())
    assert torch.equal(found.batch.rewards, batch.rewards)
    assert to_floats(found.metrics) == {"correction/noise_corrected_j": 1.0}


def test_rates_can_be_replaced_while_training_and_are_kept() -> None:
    correction = NoiseCorrected(NoiseCorrected.Config(false_positive_rate=0.1, false_negative_rate=0.1))
    correction.set_rates(0.2, 0.3)
    other = NoiseCorrected(NoiseCorrected.Config(false_positive_rate=0.0, false_negative_rate=0.0))
    other.load_state_dict(correction.state_dict())
    assert other.rates == (0.2, 0.3)
    with pytest.raises(ValueError, match="rates must be in"):
        correction.set_rates(1.0, 0.0)


@given(seed=st.integers(0, 500), fpr=st.floats(0.0, 0.4), fnr=st.floats(0.0, 0.4))
@CALM
def test_noise_corrected_grpo_equals_the_loop(seed: int, fpr: float, fnr: float) -> None:
    scores, ids = binary(seed)
    rates = {"false_positive_rate": fpr, "false_negative_rate": fnr}
    algorithm = build_algorithm("nc-grpo", {"rates": rates})
    found = algorithm.group_advantages(scores, ids)  # type: ignore[attr-defined]
    j = 1.0 - fpr - fnr
    for i in range(len(scores)):
        mates = scores[ids == ids[i]]
        p = min(max((float(mates.mean()) - fpr) / j, 0.05), 0.95)
        assert float(clean_std(scores, ids, fpr, fnr)[i]) == pytest.approx((p * (1 - p)) ** 0.5)
        flat = bool((mates == mates[0]).all())
        expected = 0.0 if flat else float((scores[i] - mates.mean()) / j) / (p * (1 - p)) ** 0.5
        assert float(found[i]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for name in ids.unique():
        assert float(found[ids == name].sum()) == pytest.approx(0.0, abs=1e-9)  # invariant 25


def test_the_presets_on_a_batch_spread_over_ranks() -> None:
    batch = make_batch(2)
    batch = CorrectedRewards(batch).with_scores((batch.scores > 0.5).to(F64), {}).batch
    for name in ("nc-grpo", "nc-dr-grpo", "forward-corrected"):
        algorithm = build_algorithm(name)
        old = make_old(algorithm, batch, 1)
        whole = algorithm.estimate(batch, old, SingleProcess()).advantages
        per_row = whole.sum(dim=1) / batch.action_mask.sum(dim=1)
        if name == "forward-corrected":
            torch.testing.assert_close(per_row, batch.scores - 0.9)
        if name == "nc-dr-grpo":
            torch.testing.assert_close(per_row, centred_scores(batch.scores, batch.group_ids) / 0.8)

        def work(world: ThreadWorld, a: Algorithm = algorithm, o: OldOutputs = old) -> Tensor:
            return a.estimate(batch.rows(ROWS[world.rank]), take(o, ROWS[world.rank]), world).advantages

        parts = on_ranks(2, work)
        for part, mine in zip(parts, ROWS, strict=True):
            torch.testing.assert_close(part, whole[mine], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nc_grpo", {}, "algorithm.rates: required but not given"),
        ("nc-grpo", {"rates": {"false_positive_rate": 0.6, "false_negative_rate": 0.5}}, "must be below 1, got 1.1"),
        ("nc-grpo", {"kl_mode": "reward"}, "algorithm.kl_mode: must be 'loss'"),
        ("grpo", {"reward_correction": "noise_corrected"}, "reward_correction.0.false_positive_rate: required"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert message in str(caught.value)


def with_estimates(estimated: bool) -> list[Algorithm]:
    """The three methods that know error rates."""
    rates = {"false_positive_rate": 0.1, "false_negative_rate": 0.1, "estimated": estimated}
    forward = {"type": "forward_corrected", "false_negative_rate": 0.1, "estimated": estimated}
    return [
        build_algorithm("nc-grpo", {"rates": rates}),
        build_algorithm("nc-dr-grpo", {"reward_correction": {"type": "noise_corrected", **rates}}),
        build_algorithm("forward-corrected", {"reward_correction": forward}),
    ]


def test_estimated_rates_are_used_where_they_are_asked_for_and_kept_in_checkpoints() -> None:
    batch = make_batch(2)
    batch = CorrectedRewards(batch).with_scores((batch.scores > 0.5).to(F64), {}).batch
    for given_rates, estimating, resumed in zip(
        with_estimates(False), with_estimates(True), with_estimates(True), strict=True
    ):
        old = make_old(given_rates, batch, 1)

        def advantages(algorithm: Algorithm, old: OldOutputs = old) -> Tensor:
            return algorithm.estimate(batch, old, SingleProcess()).advantages

        first = advantages(given_rates)
        torch.testing.assert_close(advantages(estimating), first)  # until something is known
        assert (given_rates.takes_estimated_rates, estimating.takes_estimated_rates) == (False, True)
        for algorithm in (given_rates, estimating):
            algorithm.set_rates(0.3, 0.2)
        torch.testing.assert_close(advantages(given_rates), first)
        assert not torch.allclose(advantages(estimating), first)
        resumed.load_state_dict(estimating.state_dict())
        torch.testing.assert_close(advantages(resumed), advantages(estimating))
    assert not build_algorithm("grpo").takes_estimated_rates


@pytest.mark.parametrize("rates", [(0.6, 0.5), (0.5, 0.5), (0.7, 0.3), (0.05, 0.95), (0.95, 0.9)])
def test_rates_that_leave_no_j_are_refused_wherever_they_come_from(rates: tuple[float, float]) -> None:
    """They used to train at ten times the size, with J taken for 0.1."""
    with pytest.raises(ValueError, match="no J above 0"):
        youden_j(*rates)
    with pytest.raises(ValueError, match="no J above 0"):
        backward_corrected(torch.tensor([0.0, 1.0]), *rates)
    with pytest.raises(ValueError, match="no J above 0"):
        clean_std(torch.tensor([0.0, 1.0]), torch.tensor([0, 0]), *rates)
    written = {"false_positive_rate": rates[0], "false_negative_rate": rates[1]}
    for name, options in (
        ("nc-grpo", {"rates": written}),
        ("dr-grpo", {"reward_correction": {"type": "noise_corrected", **written}}),
    ):
        with pytest.raises(UserError, match="says nothing of the answer, or the opposite"):
            build_algorithm(name, options)
    for algorithm in with_estimates(True):
        before = algorithm.state_dict()
        with pytest.raises(UserError) as caught:
            algorithm.set_rates(*rates)
        j = f"J = {1.0 - sum(rates):.2f} is not above 0"
        assert j.replace("-0.00", "0.00") in str(caught.value).replace("-0.00", "0.00")
        assert "as estimated from re-checked trajectories" in str(caught.value)
        assert algorithm.state_dict() == before
    for algorithm in with_estimates(False):
        algorithm.set_rates(*rates)  # nobody asked for them


def test_a_checkpoint_with_such_rates_is_not_gone_on_from() -> None:
    for algorithm in with_estimates(True)[:2]:
        state = algorithm.state_dict()
        kept = state if "rates" in state else state["corrections"][0]
        kept["rates"] = [0.6, 0.5]
        with pytest.raises(UserError, match=r"J = -0\.10 is not above 0"):
            algorithm.load_state_dict(state)


def test_j_is_reported_as_it_is_where_the_floor_takes_its_place() -> None:
    options = {"type": "noise_corrected", "false_positive_rate": 0.45, "false_negative_rate": 0.5}
    algorithm, batch = build_algorithm("dr-grpo", {"reward_correction": options}), make_batch(1)
    found = algorithm.correct_rewards(batch, make_old(algorithm, batch, 0), SingleProcess())
    torch.testing.assert_close(found.batch.scores, (batch.scores - 0.45) / 0.1)
    assert to_floats(found.metrics)["correction/noise_corrected_j"] == pytest.approx(0.05)


def test_what_the_backward_correction_makes_of_all_scores() -> None:
    """``(r - rho+) / J``: moved by rho+, stretched by either rate, and both as soon as the run may replace them."""
    for rates, expected in (
        ((0.0, 0.0), ScoreMap()),
        ((0.0, 0.1), ScoreMap(scales=True)),
        ((0.1, 0.0), ScoreMap(shifts=True, scales=True)),
    ):
        given_rates = {"false_positive_rate": rates[0], "false_negative_rate": rates[1]}
        assert NoiseCorrected(NoiseCorrected.Config(**given_rates)).score_map == expected
        estimating = NoiseCorrected(NoiseCorrected.Config(**given_rates, estimated=True))
        assert estimating.score_map == ScoreMap(shifts=True, scales=True)
        estimating.set_rates(*rates)  # a rate of 0 is one that may be estimated
        assert estimating.rates == rates


def test_a_checkpoint_without_a_rate_keeps_the_one_that_was_written() -> None:
    correction = ForwardCorrected(ForwardCorrected.Config(false_negative_rate=0.3))
    correction.load_state_dict({})
    assert correction.false_negative_rate == 0.3

"""Reward corrections: they change scores and token rewards together, alike on every rank, and combine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.corrections.normalise import Normalise
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective, SingleProcess
from learner.metrics import to_floats
from learner.models.spec import CriticOutput
from rollout.component import UserError
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64


class HalfWeight(RewardCorrection):
    """Trust every trajectory half as much, in both losses."""

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        half = torch.full_like(current.batch.scores, 0.5)
        return CorrectedRewards(current.batch, half, half, current.metrics)


class NeedsCritic(HalfWeight):
    """Something that reads the critic."""

    needs_critic = True


def corrected(names: list[object], scores: Tensor) -> CorrectedRewards:
    batch = make_batch(0, rows=len(scores))
    batch = CorrectedRewards(batch).with_scores(scores, {}).batch
    algorithm = build_algorithm("grpo", {"reward_correction": names})
    return algorithm.correct_rewards(batch, make_old(algorithm, batch, 1), SingleProcess())


def test_percentile_clip() -> None:
    scores = torch.tensor([-100.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1000.0, 4.0], dtype=F64)
    found = corrected([{"type": "percentile_clip", "low": 0.1, "high": 0.8}], scores)
    assert found.batch.scores.tolist() == scores.clamp(0.0, 6.0).tolist()
    assert torch.equal(found.batch.rewards.sum(dim=1), found.batch.scores)
    values = to_floats(found.metrics)
    assert values["correction/percentile_clip_frac"] == pytest.approx(3 / 11)
    assert values["correction/percentile_clip_change"] == pytest.approx((100 + 1 + 994) / 11)
    assert (values["correction/clip_low"], values["correction/clip_high"]) == (0.0, 6.0)


def test_mad_clip() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 1e6], dtype=F64)
    found = corrected([{"type": "mad_clip", "width": 2.0}], scores)
    assert found.batch.scores[4].item() == pytest.approx(2.0 + 2.0 * 1.4826022185056018)
    assert found.batch.scores[:4].tolist() == [0.0, 1.0, 2.0, 3.0]
    binary = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=F64)
    assert corrected(["mad_clip"], binary).batch.scores.tolist() == binary.tolist()


def test_rewards_in_the_unit_interval_stay_as_they_are() -> None:
    """Neutral where nothing is an outlier: half zeros and half ones."""
    scores = torch.tensor([0.0, 1.0] * 4, dtype=F64)
    assert torch.equal(corrected(["percentile_clip", "mad_clip"], scores).batch.scores, scores)


def test_corrections_apply_in_order_and_alike_on_every_rank() -> None:
    batch = make_batch(3)
    options = {"reward_correction": [{"type": "percentile_clip", "low": 0.2, "high": 0.7}, "mad_clip"]}
    algorithm = build_algorithm("ppo", options)
    old = make_old(algorithm, batch, 1)
    whole = algorithm.correct_rewards(batch, old, SingleProcess()).batch
    rows = [torch.tensor([7, 1]), torch.tensor([0, 2, 3, 4, 5, 6])]
    parts = on_ranks(
        2,
        lambda world: algorithm.correct_rewards(batch.rows(rows[world.rank]), take(old, rows[world.rank]), world).batch,
    )
    for part, mine in zip(parts, rows, strict=True):
        assert torch.equal(part.scores, whole.scores[mine])
        assert torch.equal(part.rewards, whole.rewards[mine])
    assert not torch.equal(whole.scores, batch.scores)


@pytest.mark.parametrize("name", ["ppo", "grpo", "dvpo"])
def test_weights_reach_both_losses(name: str) -> None:
    options: dict[str, object] = {"critic": {"num_heads": 2, "num_quantiles": 40}} if name == "dvpo" else {}
    weighted_options = {**options, "reward_correction": [f"{__name__}:HalfWeight"]}
    batch = make_batch(4)
    plain, weighted = build_algorithm(name, options), build_algorithm(name, weighted_options)
    losses = []
    for algorithm in (plain, weighted):
        old = make_old(algorithm, batch, 1)
        estimates = algorithm.estimate(batch, old, SingleProcess())
        inputs = policy_inputs(algorithm, batch, old, old.logprobs + 0.05)
        losses.append([algorithm.policy_loss(inputs, estimates, counts(batch)).loss.item()])
        if old.critic is not None:
            moved = CriticOutput(old.critic.quantile_values + 0.1, old.critic.raw_crossing_frac)
            losses[-1].append(algorithm.critic_loss(moved, batch, estimates, counts(batch)).loss.item())
    assert losses[1] == pytest.approx([loss / 2 for loss in losses[0]], rel=1e-9)


def test_a_correction_that_needs_a_critic_says_so() -> None:
    with pytest.raises(UserError, match="NeedsCritic needs a critic, and GRPO has none"):
        build_algorithm("grpo", {"reward_correction": f"{__name__}:NeedsCritic"})
    build_algorithm("ppo", {"reward_correction": {"type": f"{__name__}:NeedsCritic"}})


def test_nothing_has_been_seen_before_the_first_reward() -> None:
    """The least standard deviation is then the only one there is."""
    assert Normalise(Normalise.Config(min_std=0.25)).std == 0.25


def test_soft_overlong_is_the_piecewise_formula() -> None:
    """DAPO, Eq 13, case by case."""

    def punishment(length: int, most: int, buffer: int) -> float:
        if length <= most - buffer:
            return 0.0
        return ((most - buffer) - length) / buffer if length <= most else -1.0

    for most, buffer in ((9, 4), (7, 7), (12, 1), (3, 2)):
        batch = make_batch(3, rows=16)
        spec = {"type": "soft_overlong", "max_tokens": most, "buffer_tokens": buffer, "weight": 0.5}
        algorithm = build_algorithm("grpo", {"reward_correction": [spec]})
        found = algorithm.correct_rewards(batch, make_old(algorithm, batch, 1), SingleProcess())
        lengths = [sum(row) for row in batch.action_mask.tolist()]
        penalties = [0.5 * punishment(length, most, buffer) for length in lengths]
        expected = batch.scores + torch.tensor(penalties, dtype=F64)
        torch.testing.assert_close(found.batch.scores, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.batch.rewards.sum(dim=1), expected, rtol=1e-12, atol=1e-12)
        values = to_floats(found.metrics)
        assert values["correction/soft_overlong_frac"] == pytest.approx(sum(p < 0 for p in penalties) / 16)
        assert values["correction/soft_overlong_change"] == pytest.approx(-sum(penalties) / 16)


@pytest.mark.parametrize(("apply_to", "policy", "critic"), [("both", 1, 1), ("policy", 1, 0), ("critic", 0, 1)])
def test_overlong_filter_leaves_cut_responses_out(apply_to: str, policy: int, critic: int) -> None:
    batch = make_batch(4, rows=12)
    cut = batch.truncated
    assert 0 < int(cut.sum()) < 12
    algorithm = build_algorithm("ppo", {"reward_correction": [{"type": "overlong_filter", "apply_to": apply_to}]})
    old = make_old(algorithm, batch, 1)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    logprobs = old.logprobs.clone().requires_grad_()
    algorithm.policy_loss(policy_inputs(algorithm, batch, old, logprobs), estimates, counts(batch)).loss.backward()
    assert logprobs.grad is not None and old.critic is not None
    quantiles = old.critic.quantile_values.clone().requires_grad_()
    output = CriticOutput(quantiles, old.critic.raw_crossing_frac)
    algorithm.critic_loss(output, batch, estimates, counts(batch)).loss.backward()
    assert quantiles.grad is not None
    for gradient, is_masked in ((logprobs.grad, policy), (quantiles.grad, critic)):
        sizes = gradient.abs().flatten(1).sum(dim=1)
        assert bool((sizes[cut] == 0).all()) == bool(is_masked) and bool((sizes[~cut] > 0).all())
    assert to_floats(estimates.metrics)["correction/overlong_filter_frac"] == pytest.approx(float(cut.sum()) / 12)
    scores = algorithm.corrected_scores
    assert torch.equal(scores, batch.scores)  # they still count in the group

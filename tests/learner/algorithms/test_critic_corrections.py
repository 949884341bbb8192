"""Corrections that ask the critic: winsorise and precision, both ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections.precision import Precision, bounded_mean_one
from learner.algorithms.corrections.winsorise import Winsorise
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import SingleProcess
from learner.maths.quantiles.quantiles import midpoint_taus
from learner.metrics import to_floats
from learner.models.spec import CriticOutput
from rollout.component import UserError
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64
SMALL = {"critic": {"num_heads": 2, "num_quantiles": 40}}
ROWS = [torch.tensor([7, 1]), torch.tensor([0, 2, 3, 4, 5, 6])]


def built(correction: dict[str, Any], name: str = "dvpo") -> Algorithm:
    return build_algorithm(name, {**SMALL, "reward_correction": [correction]})


def uniform_critic(batch: Any, low: Tensor, high: Tensor) -> OldOutputs:
    """A critic whose law before each row's last action is uniform on [low, high] ([batch] each), rubbish elsewhere."""
    mask = batch.action_mask
    taus = midpoint_taus(40, dtype=F64)
    law = low[:, None] + (high - low)[:, None] * taus
    q = torch.full((*mask.shape, 2, 40), 1e6, dtype=F64)
    for row in range(len(mask)):
        last = int(mask[row].nonzero().max())
        q[row, last, 0], q[row, last, 1] = law[row] - 0.5, (law[row] + 0.5).flip(0)  # heads differ, one is unsorted
    return OldOutputs(batch.rollout_logprobs, None, CriticOutput(q, torch.zeros_like(batch.rewards)))


def outlying_batch() -> Any:
    """Scores 0.5 but for two spikes."""
    batch = make_batch(0)
    scores = torch.tensor([0.5, 9.0, 0.5, 0.5, -9.0, 0.5, 0.5, 0.5], dtype=F64)
    return CorrectedRewards(batch).with_scores(scores, {}).batch


def test_winsorise_clips_to_the_padded_range_at_the_token_that_earns() -> None:
    batch = outlying_batch()
    low, high = torch.zeros(8, dtype=F64), torch.linspace(1.0, 2.0, 8, dtype=F64)
    algorithm = built({"type": "winsorise", "warmup_updates": 0, "coverage_tolerance": 0.5})
    found = algorithm.correct_rewards(batch, uniform_critic(batch, low, high), SingleProcess())
    width = 0.9 * (high - low)
    top, bottom = 0.95 * high + 0.25 * width + 0.05, 0.05 * high - 0.25 * width - 0.05
    expected = torch.minimum(torch.maximum(batch.scores, bottom), top)
    torch.testing.assert_close(found.batch.scores, expected, rtol=1e-12, atol=1e-12)
    assert (expected != batch.scores).sum() == 2
    torch.testing.assert_close(found.batch.rewards.sum(dim=1), expected)
    values = to_floats(found.metrics)
    assert values["correction/winsorise_frac"] == 0.25
    assert values["correction/winsorise_active"] == 1.0
    assert values["correction/winsorise_coverage"] == pytest.approx(0.75)
    assert values["correction/winsorise_total"] == 2
    again = algorithm.correct_rewards(batch, uniform_critic(batch, low, high), SingleProcess())
    assert to_floats(again.metrics)["correction/winsorise_total"] == 4
    assert to_floats(again.metrics)["correction/winsorise_total_frac"] == 0.25


def test_winsorise_waits_for_warm_up_and_for_a_calibrated_critic() -> None:
    batch = outlying_batch()
    ones = torch.ones(8, dtype=F64)
    wide, narrow = uniform_critic(batch, 0 * ones, ones), uniform_critic(batch, 0.7 * ones, 0.8 * ones)
    algorithm = built({"type": "winsorise", "warmup_updates": 2, "coverage_tolerance": 0.2, "coverage_decay": 0.5})

    def active(old: OldOutputs) -> bool:
        found = algorithm.correct_rewards(batch, old, SingleProcess())
        values = to_floats(found.metrics)
        assert torch.equal(found.batch.scores, batch.scores) == (values["correction/winsorise_active"] == 0.0)
        return bool(values["correction/winsorise_active"])

    assert [active(wide) for _ in range(3)] == [False, False, True]  # coverage .75 >= .9 - .2
    assert not active(narrow)  # nothing is inside any more
    saved = algorithm.state_dict()
    # the bad update weighs 2^-(k + 1) / (1 - 2^-(4 + k)) after k good ones: below 1 - .7 / .75 from k = 3 on
    assert [active(wide) for _ in range(4)] == [False, False, True, True]
    restored = built({"type": "winsorise", "warmup_updates": 2, "coverage_tolerance": 0.2, "coverage_decay": 0.5})
    restored.load_state_dict(saved)
    assert restored.state_dict() == saved
    assert saved["corrections"][0]["num_clipped"] == 2  # of the third update


def test_winsorise_is_alike_on_every_rank_and_leaves_what_the_critic_expects() -> None:
    batch = outlying_batch()
    old = uniform_critic(batch, torch.zeros(8, dtype=F64), torch.ones(8, dtype=F64))
    options = {"type": "winsorise", "warmup_updates": 0, "coverage_tolerance": 0.5}
    whole = built(options).correct_rewards(batch, old, SingleProcess())
    algorithms = [built(options), built(options)]
    parts = on_ranks(
        2,
        lambda world: algorithms[world.rank].correct_rewards(
            batch.rows(ROWS[world.rank]), take(old, ROWS[world.rank]), world
        ),
    )
    for part, mine in zip(parts, ROWS, strict=True):
        assert torch.equal(part.batch.scores, whole.batch.scores[mine])
        keys = ("correction/winsorise_coverage", "correction/winsorise_total", "correction/winsorise_active")
        assert [to_floats(part.metrics)[k] for k in keys] == [to_floats(whole.metrics)[k] for k in keys]
    calm = CorrectedRewards(batch).with_scores(torch.full((8,), 0.6, dtype=F64), {}).batch
    assert torch.equal(built(options).correct_rewards(calm, old, SingleProcess()).batch.scores, calm.scores)


@given(
    values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40),
    bound=st.floats(1.1, 20.0),
    factor=st.floats(1e-3, 1e3),
)
@settings(max_examples=60, deadline=None)
def test_precision_weights_are_bounded_average_1_and_follow_the_order(
    values: list[float], bound: float, factor: float
) -> None:
    x = torch.tensor(values, dtype=F64)
    weights = bounded_mean_one(x, bound)
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-9)
    assert float(weights.min()) >= 1 / bound - 1e-12 and float(weights.max()) <= bound + 1e-12
    assert (weights[x.argsort()].diff() >= 0).all()
    inside = (weights > 1 / bound + 1e-9) & (weights < bound - 1e-9)
    ratio = (weights / x)[inside]  # proportional where no bound holds
    assert ratio.numel() == 0 or float(ratio.max() / ratio.min()) == pytest.approx(1.0, rel=1e-9)
    torch.testing.assert_close(bounded_mean_one(factor * x, bound), weights, rtol=1e-6, atol=1e-9)


def test_precision_trusts_the_sure_and_reaches_both_losses() -> None:
    batch = make_batch(3)
    spreads = torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0], dtype=F64)
    old = uniform_critic(batch, -spreads, spreads)
    options = {"type": "precision", "floor": 1e-6, "bound": 50.0}
    found = built(options).correct_rewards(batch, old, SingleProcess())
    expected = torch.tensor([1.6] * 4 + [0.4] * 4, dtype=F64)  # 1 : 1/4, mean 1
    assert found.policy_weights is not None and found.critic_weights is not None
    torch.testing.assert_close(found.policy_weights, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.critic_weights, expected, rtol=1e-9, atol=0)
    assert torch.equal(found.batch.scores, batch.scores)
    parts = on_ranks(
        2,
        lambda world: (
            built(options)
            .correct_rewards(batch.rows(ROWS[world.rank]), take(old, ROWS[world.rank]), world)
            .policy_weights
        ),
    )
    for part, mine in zip(parts, ROWS, strict=True):
        torch.testing.assert_close(part, expected[mine], rtol=1e-9, atol=0)
    only = built({**options, "apply_to": "policy"}).correct_rewards(batch, old, SingleProcess())
    assert only.critic_weights is None
    half = torch.full((8,), 0.5, dtype=F64)
    stacked = built(options).corrections[0](CorrectedRewards(batch, half, half), old, SingleProcess())
    torch.testing.assert_close(stacked.policy_weights, expected / 2, rtol=1e-9, atol=0)


def test_a_critic_that_is_equally_sure_of_all_gives_weights_of_1() -> None:
    batch = make_batch(4)
    plain, weighted = build_algorithm("dvpo", SMALL), built({"type": "precision"})
    losses = []
    for algorithm in (plain, weighted):
        old = make_old(algorithm, batch, 1)
        assert old.critic is not None
        q = torch.where(batch.action_mask[..., None, None], torch.linspace(0, 1, 40, dtype=F64), 0.0)
        old = replace(old, critic=CriticOutput(q.expand_as(old.critic.quantile_values), old.critic.raw_crossing_frac))
        estimates = algorithm.estimate(batch, old, SingleProcess())
        inputs = policy_inputs(algorithm, batch, old, old.logprobs + 0.05)
        losses.append(algorithm.policy_loss(inputs, estimates, counts(batch)).loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "correction", "message"),
    [
        ("grpo", {"type": "winsorise"}, "Winsorise needs a critic, and GRPO has none"),
        ("ppo", {"type": "winsorise"}, "Winsorise needs a critic with quantiles, and critic.num_quantiles is 1"),
        ("ppo", {"type": "precision"}, "Precision needs a critic with quantiles, and critic.num_quantiles is 1"),
        ("dvpo", {"type": "winsorise", "low": 0.01}, "the quantile at 0.01, for which critic.num_quantiles must be at"),
        ("dvpo", {"type": "winsorise", "low": 0.9, "high": 0.1}, "low must be below high"),
        ("dvpo", {"type": "precision", "bound": 1.0}, "reward_correction.0.bound"),
    ],
)
def test_mistakes_are_named(name: str, correction: dict[str, object], message: str) -> None:
    options: dict[str, object] = {**(SMALL if name == "dvpo" else {}), "reward_correction": [correction]}
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert message in str(caught.value)


# --- rewards of few values ----------------------------------------------------------------------------------------


def rewards_of(values: list[float], chances: list[float], rows: int, seed: int) -> Tensor:
    """Draws of a discrete reward, each value at least once."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.tensor(chances, dtype=F64).multinomial(rows, replacement=True, generator=rng)
    drawn[: len(values)] = torch.arange(len(values))
    return torch.tensor(values, dtype=F64)[drawn]


@pytest.mark.parametrize(
    ("values", "chances"),
    [
        ([0.0, 1.0], [0.97, 0.03]),
        ([0.0, 1.0], [0.02, 0.98]),
        ([-1.0, 1.0], [0.96, 0.04]),
        ([0.0, 0.1, 1.0], [0.5, 0.47, 0.03]),
        ([0.0, 0.25, 0.5, 0.75, 1.0], [0.9, 0.04, 0.03, 0.02, 0.01]),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["winsorise", "percentile_clip", "mad_clip"])
def test_rare_outcomes_of_a_discrete_reward_are_left_as_they_are(
    kind: str, values: list[float], chances: list[float]
) -> None:
    """A critic, and a batch, that hold a success for impossible: at a chance of 3 % it was clipped to 0.05."""
    batch = make_batch(5, rows=64)
    batch = CorrectedRewards(batch).with_scores(rewards_of(values, chances, 64, 0), {}).batch
    common = torch.full((64,), values[chances.index(max(chances))], dtype=F64)
    options = {"warmup_updates": 0, "coverage_tolerance": 1.0} if kind == "winsorise" else {}
    found = built({"type": kind, **options}).correct_rewards(
        batch, uniform_critic(batch, common - 0.01, common + 0.01), SingleProcess()
    )
    assert torch.equal(found.batch.scores, batch.scores)
    if kind == "winsorise":
        assert to_floats(found.metrics)["correction/winsorise_active"] == 0.0


def test_a_continuous_reward_is_clipped_as_before_and_ranks_agree_on_which_it_is() -> None:
    """Ranks that see two values each, of four in all, look at the whole batch."""
    batch = make_batch(6)
    scores = torch.tensor([0.0, 9.0, 0.5, 0.5, -9.0, 0.0, 0.5, 0.5], dtype=F64)
    batch = CorrectedRewards(batch).with_scores(scores, {}).batch
    old = uniform_critic(batch, torch.zeros(8, dtype=F64), torch.ones(8, dtype=F64))
    options = {"type": "winsorise", "warmup_updates": 0, "coverage_tolerance": 1.0}
    algorithms = [built(options), built(options)]
    rows = [torch.tensor([0, 1, 5]), torch.tensor([2, 3, 4, 6, 7])]
    parts = on_ranks(
        2,
        lambda world: algorithms[world.rank].correct_rewards(
            batch.rows(rows[world.rank]), take(old, rows[world.rank]), world
        ),
    )
    assert all(to_floats(part.metrics)["correction/winsorise_active"] == 1.0 for part in parts)
    assert float(parts[0].batch.scores.max()) < 2.0 and float(parts[1].batch.scores.min()) > -1.0


def test_bounded_weights_by_hand() -> None:
    """The large one is cut at 2, so the others share what is left of the sum; and the other way round."""
    assert bounded_mean_one(torch.tensor([1.0, 1.0, 100.0, 1.0]), 2.0).tolist() == pytest.approx(
        [2 / 3, 2 / 3, 2, 2 / 3]
    )
    low = bounded_mean_one(torch.tensor([1.0, 1.0, 0.01, 1.0]), 2.0).tolist()
    assert low == pytest.approx([3.5 / 3, 3.5 / 3, 0.5, 3.5 / 3])


@pytest.mark.parametrize("bound", [1.5, 4.0, 100.0])
def test_a_critic_that_is_certain_of_everything_trusts_all_alike(bound: float) -> None:
    """Every predicted variance is 0: the reciprocal must not overflow, which made all weights 1 / bound."""
    weights = Precision(Precision.Config(bound=bound)).weights(torch.zeros(4))
    assert weights.tolist() == pytest.approx([1.0] * 4, rel=1e-6)


def test_before_the_first_batch_coverage_is_unknown_and_nothing_is_clipped() -> None:
    correction = Winsorise(Winsorise.Config(warmup_updates=0, coverage_tolerance=1.0))
    assert correction.coverage != correction.coverage
    assert not correction.calibrated

"""DistRLVR: targets of several draws, and advantages weighed by tails, token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.streams import row_generators
from learner.maths.collective import Collective, SingleProcess
from learner.maths.returns import lambda_returns, mixture_targets
from learner.metrics import to_floats
from rollout.component import UserError
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import make_batch, make_old, take

LAW = {"num_heads": 1, "num_quantiles": 20}


def distrlvr(**options: Any) -> ActorCritic:
    found = build_algorithm("distrlvr", {"critic": LAW, "tail_share": 0.2, **options})
    assert isinstance(found, ActorCritic)
    return found


def test_targets_are_the_atoms_of_all_draws_and_one_draw_is_the_mixture() -> None:
    algorithm, batch = distrlvr(draws=3, lam_critic=0.7), make_batch(1)
    old = make_old(algorithm, batch, 2)
    assert old.critic is not None
    found = algorithm.estimate(batch, old, SingleProcess()).value_targets
    assert found is not None and found.shape[-1] == 60
    law = old.critic.quantile_values[:, :, 0]
    atoms = [
        mixture_targets(
            batch.rewards, law, batch.action_mask, 1.0, 0.7, row_generators(batch.sample_seeds, "mixture", step)
        )
        for step in range(3)
    ]
    for row, token in batch.action_mask.nonzero().tolist():
        every = sorted(value for draw in atoms for value in draw[row, token].tolist())
        assert found[row, token].tolist() == every
    one = distrlvr(draws=1, lam_critic=0.7).estimate(batch, old, SingleProcess()).value_targets
    assert one is not None and torch.equal(one, atoms[0])
    assert not torch.equal(atoms[0], atoms[1])


def test_more_draws_come_nearer_to_the_lambda_return() -> None:
    """The mean of the atoms is the lambda-return in expectation; its error falls with the root of the draws."""
    batch, errors = make_batch(3), []
    for draws in (1, 16):
        algorithm = distrlvr(draws=draws, lam_critic=0.5)
        old = make_old(algorithm, batch, 4)
        assert old.critic is not None
        found = algorithm.estimate(batch, old, SingleProcess()).value_targets
        assert found is not None
        values = old.critic.quantile_values[:, :, 0].mean(dim=-1)
        returns = lambda_returns(batch.rewards, values, batch.action_mask, 1.0, 0.5)
        gap = (found.mean(dim=-1) - returns)[batch.action_mask]
        errors.append(float(gap.square().mean().sqrt()))
    assert errors[1] < errors[0] / 2.0


@pytest.mark.parametrize("tails", ["both", "upper", "lower"])
def test_advantages_equal_the_loop(tails: str) -> None:
    batch = make_batch(5)
    algorithm = distrlvr(tails=tails, tail_coef=0.8)
    plain = build_algorithm("actor_critic", {"critic": LAW, "target": "dual_replacement"})
    old = make_old(algorithm, batch, 6)
    assert old.critic is not None
    raw = plain.estimate(batch, old, SingleProcess()).advantages
    estimates = algorithm.estimate(batch, old, SingleProcess())
    places = [(b, t) for b in range(8) for t in range(14) if batch.action_mask[b, t]]
    gap = {}
    for b, t in places:
        law = sorted(old.critic.quantile_values[b, t, 0].tolist())
        mean, low, high = sum(law) / 20, sum(law[:4]) / 4, sum(law[16:]) / 4
        gap[b, t] = high - mean if raw[b, t] > 0.0 else mean - low
    weight = dict.fromkeys(places, 1.0)
    for above in (True, False):
        mine = [place for place in places if bool(raw[place] > 0.0) == above]
        typical = sum(gap[place] for place in mine) / len(mine)
        for place in mine:
            if tails in ("both", "upper" if above else "lower"):
                weight[place] = 1.0 + 0.8 * min(1.0, max(0.0, gap[place] / typical - 1.0))
    size = sum(abs(float(raw[place])) for place in places)
    factor = size / sum(abs(float(raw[place])) * weight[place] for place in places)
    for place in places:
        assert float(estimates.advantages[place]) == pytest.approx(float(raw[place]) * weight[place] * factor)
    assert float(estimates.advantages.abs().sum()) == pytest.approx(size), "the scale of updates stays"
    shown = to_floats(estimates.metrics)
    amplified = sum(w > 1.0 for w in weight.values()) / len(places)
    assert 0.0 < amplified < 1.0
    assert shown["advantage/amplified_frac"] == pytest.approx(amplified)
    assert shown["advantage/tail_factor"] == pytest.approx(factor)
    assert bool((estimates.advantages[~batch.action_mask] == 0.0).all())


def test_without_weight_it_is_the_plain_critic_and_units_do_not_matter() -> None:
    batch = make_batch(7)
    plain = build_algorithm("actor_critic", {"critic": LAW, "target": "dual_replacement"})
    old = make_old(plain, batch, 8)
    expected = plain.estimate(batch, old, SingleProcess()).advantages
    torch.testing.assert_close(distrlvr(tail_coef=0.0).estimate(batch, old, SingleProcess()).advantages, expected)


def test_ranks_agree() -> None:
    batch, algorithm = make_batch(9), distrlvr()
    old = make_old(algorithm, batch, 10)
    whole = algorithm.estimate(batch, old, SingleProcess()).advantages
    rows = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]

    def part(world: Collective) -> torch.Tensor:
        mine = rows[world.rank]
        return distrlvr().estimate(batch.rows(mine), take(old, mine), world).advantages

    for found, mine in zip(on_ranks(2, part), rows, strict=True):
        torch.testing.assert_close(found, whole[mine])


def test_a_scalar_critic_has_no_tails() -> None:
    with pytest.raises(UserError, match="num_quantiles: dist_rlvr looks at tails"):
        build_algorithm("distrlvr", {"critic": {"num_quantiles": 1}})

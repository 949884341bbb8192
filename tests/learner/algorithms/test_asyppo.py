"""AsyPPO: which head learns from which response, and which tokens the policy leaves out, token by token."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.clipped_policy import ClippedPolicy
from learner.algorithms.with_critic.asyppo import below_share, shards
from learner.maths.collective import Collective, SingleProcess
from learner.metrics import to_floats
from learner.models.spec import CriticOutput
from rollout.component import UserError
from tests.learner.oracles import grad_of, on_ranks
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64


def test_responses_of_a_prompt_go_round() -> None:
    ids, seeds = torch.tensor([7, 7, 2, 7, 2, 7, 9]), torch.tensor([40, 10, 5, 30, 1, 20, 3])
    found = shards(ids, seeds, 2).tolist()
    # prompts in order 2, 7, 9 begin with 0, 1, 0; inside each the seeds' order decides
    assert found == [0, 1, 1, 1, 0, 0, 0]
    assert sorted(shards(torch.arange(6), torch.zeros(6, dtype=torch.int64), 3).tolist()) == [0, 0, 1, 1, 2, 2]


def test_below_share_takes_no_part_of_a_tie() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0])
    assert below_share(values, values, 0.0).tolist() == [False] * 5
    assert below_share(values, values, 0.2).tolist() == [False, True, False, False, False]
    assert below_share(values, values, 0.4).tolist() == [False, True, False, False, False]
    assert below_share(values, values, 0.6).tolist() == [False, True, True, True, False]


def test_masks_equal_the_loop() -> None:
    options = {"entropy_coef": 0.3, "agreement_share": 0.25, "divergence_share": 0.4, "critic": {"num_heads": 3}}
    algorithm, plain = build_algorithm("asyppo", options), build_algorithm("ppo", {"critic": {"num_heads": 3}})
    assert isinstance(algorithm, ClippedPolicy) and algorithm.needs_old_heads
    batch = make_batch(2)
    old = make_old(algorithm, batch, 3)
    assert old.critic is not None
    estimates = algorithm.estimate(batch, old, SingleProcess())
    reference = plain.estimate(batch, old, SingleProcess())
    places = [(b, t) for b in range(8) for t in range(14) if batch.action_mask[b, t]]
    spread = {(b, t): statistics.pstdev(old.critic.quantile_values[b, t, :, 0].tolist()) for b, t in places}
    ranked = sorted(places, key=spread.__getitem__)
    agreed, apart = set(ranked[: int(0.25 * len(ranked))]), set(ranked[len(ranked) - int(0.4 * len(ranked)) :])
    for b, t in places:
        expected = 0.0 if (b, t) in agreed else float(reference.advantages[b, t])
        assert float(estimates.advantages[b, t]) == expected
    shown = to_floats(estimates.metrics)
    assert shown["advantage/agreed_frac"] == pytest.approx(len(agreed) / len(places))
    assert shown["policy/entropy_filtered_frac"] == pytest.approx(len(apart) / len(places))
    inputs = policy_inputs(algorithm, batch, old, old.logprobs)

    def loss(entropy: Tensor) -> Tensor:
        result: Tensor = algorithm.policy_loss(replace(inputs, entropy=entropy), estimates, counts(batch)).loss
        return result

    gradient = grad_of(loss, torch.ones(8, 14, dtype=F64))
    for b, t in places:
        bonus = 0.0 if (b, t) in apart else -0.3 / len(places)
        assert float(gradient[b, t]) == pytest.approx(bonus, abs=1e-12)


def test_each_head_learns_from_its_own_responses_over_ranks() -> None:
    algorithm = build_algorithm("asyppo")
    batch = make_batch(4)
    old = make_old(algorithm, batch, 5)
    assert old.critic is not None
    values = old.critic.quantile_values
    wanted = shards(batch.group_ids, batch.sample_seeds, 2)

    def gradient(rows: Tensor, world: Collective) -> Tensor:
        own = build_algorithm("asyppo")
        part, outputs = batch.rows(rows), take(old, rows)
        found = own.estimate(part, outputs, world)

        def loss(x: Tensor) -> Tensor:
            result: Tensor = own.critic_loss(CriticOutput(x, part.rewards), part, found, counts(batch)).loss
            return result

        return grad_of(loss, values[rows])

    whole = gradient(torch.arange(8), SingleProcess()).squeeze(-1).abs().sum(dim=1)
    for row in range(8):
        assert float(whole[row, 1 - int(wanted[row])]) == 0.0 < float(whole[row, int(wanted[row])])
    split = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]
    parts = on_ranks(2, lambda world: gradient(split[world.rank], world))
    everyone = gradient(torch.arange(8), SingleProcess())
    for rows, part in zip(split, parts, strict=True):
        torch.testing.assert_close(part, everyone[rows], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": {"num_heads": 1}}, "algorithm.critic.num_heads: asyppo compares critics"),
        ({"head_bootstrap_p": 0.5}, "algorithm.head_bootstrap_p has no effect"),
        ({"divergence_share": 0.5}, "algorithm.divergence_share has no effect without an entropy bonus"),
        ({"agreement_share": 1.0}, "algorithm.agreement_share"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm("asyppo", options)
    assert message in str(caught.value)

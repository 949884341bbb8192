"""Every preset: observation tokens between responses change nothing at the tokens that were sampled (invariant 7)."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.presets import PRESETS
from learner.algorithms.records import OldOutputs
from learner.batch import TrainBatch, collate
from learner.maths.collective import SingleProcess
from learner.models.spec import CriticOutput
from learner.update.distances.sampler_gap import SamplerGap
from rollout.trajectory import FinishReason, ScoredTrajectory, Trajectory
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs

INSERTED = {2: 1, 3: 4, 6: 2}
"""Before which column of the batch how many observation tokens are put: before a turn, inside one, and later on."""


def insert(x: Tensor) -> Tensor:
    """[batch seq ...] with the new columns: NaN in numbers, no action, no matter which token."""
    fill: Any = torch.nan if x.is_floating_point() else False if x.dtype is torch.bool else 9
    pieces, start = [], 0
    for column, number in INSERTED.items():
        pieces += [x[:, start:column], x.new_full((x.shape[0], number, *x.shape[2:]), fill)]
        start = column
    return torch.cat([*pieces, x[:, start:]], dim=1)


def with_observations(batch: TrainBatch) -> TrainBatch:
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    longer = TrainBatch(**{name: insert(x) if x.dim() > 1 else x for name, x in columns.items()})
    return replace(
        longer,
        attention_mask=torch.arange(longer.token_ids.shape[1]) < (longer.lengths + sum(INSERTED.values()))[:, None],
        rollout_logprobs=longer.rollout_logprobs.nan_to_num(0.0),  # these two are made from trajectories, without NaN
        rewards=longer.rewards.nan_to_num(0.0),
    )


def outputs_of(algorithm: Algorithm, batch: TrainBatch) -> OldOutputs:
    """Random outputs of the models, those of every kind of critic among them."""
    old = make_old(algorithm, batch, 3)
    if old.critic is None:
        return old
    g = torch.Generator().manual_seed(8)
    extra = {}
    for name in ("semantic_entropy", "semantic_nll", "semantic_kl", "bottleneck_kl", "perturbed_kl"):
        extra[name] = torch.rand(batch.rewards.shape, generator=g, dtype=batch.rewards.dtype)
    for name in ("flow_velocity", "flow_velocity_other"):
        extra[name] = torch.randn(old.critic.quantile_values.shape, generator=g, dtype=batch.rewards.dtype)
    return replace(old, critic=replace(old.critic, **extra))


def outputs_with_observations(old: OldOutputs) -> OldOutputs:
    critic = old.critic
    if critic is not None:
        extra = {name: x if name == "end_values" else insert(x) for name, x in critic.optional().items()}
        critic = CriticOutput(insert(critic.quantile_values), insert(critic.raw_crossing_frac), **extra)
    reference = None if old.ref_logprobs is None else insert(old.ref_logprobs)
    hidden = None if old.masked_logprobs is None else insert(old.masked_logprobs)
    return replace(old, logprobs=insert(old.logprobs), ref_logprobs=reference, critic=critic, masked_logprobs=hidden)


@pytest.mark.parametrize("preset", PRESETS)
def test_inserted_observations_change_no_advantage_and_no_loss(preset: str) -> None:
    found = []
    for longer in (False, True):
        algorithm = build_algorithm(preset, {"critic": {"num_quantiles": 32}} if "dvpo" in preset else None)
        batch = make_batch(1)
        old = outputs_of(algorithm, batch)
        logprobs = old.logprobs + 0.3 * torch.rand(old.logprobs.shape, generator=torch.Generator().manual_seed(4))
        if longer:
            batch, old, logprobs = with_observations(batch), outputs_with_observations(old), insert(logprobs)
        mask = batch.action_mask
        estimates = algorithm.estimate(batch, old, SingleProcess())
        logprobs.requires_grad_()
        policy = algorithm.policy_loss(policy_inputs(algorithm, batch, old, logprobs), estimates, counts(batch))
        (gradient,) = torch.autograd.grad(policy.loss, logprobs)
        result = {"advantages": estimates.advantages[mask], "policy loss": policy.loss, "gradient": gradient[mask]}
        assert not gradient[~mask].any()
        if old.critic is not None:
            assert estimates.value_targets is not None
            name = "quantile_values" if old.critic.bin_logits is None else "bin_logits"  # what the loss is of
            values = getattr(old.critic, name).clone().requires_grad_()
            output = replace(old.critic, **{name: values})
            critic = algorithm.critic_loss(output, batch, estimates, counts(batch))
            (upstream,) = torch.autograd.grad(critic.loss, values)
            assert not upstream[~mask].any()
            result |= {"targets": estimates.value_targets[mask], "critic loss": critic.loss, "upstream": upstream[mask]}
        found.append(result)
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-9, atol=1e-12, msg=partial("{}: {}".format, name))


def two_turns() -> Trajectory:
    """Prompt, two tokens, three of observation, two tokens; the sampler says nonsense about what it did not sample."""
    mask = (False, False, True, True, False, False, False, True, True)
    logprobs = tuple(-1.0 if sampled else 5.0 for sampled in mask)
    ids = tuple(range(10, 19))
    return Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=ids,
        action_mask=mask,
        rollout_logprobs=logprobs,
        response_text="",
        finish_reason=FinishReason.STOP,
        policy_version_min=2,
        policy_version_max=2,
    )


def test_the_reward_is_at_the_last_sampled_token_and_observations_have_no_logprob() -> None:
    batch = collate([ScoredTrajectory(trajectory=two_turns(), reward=0.5, group_id="g")])
    assert batch.rewards.tolist() == [[0.0] * 8 + [0.5]]
    assert batch.rollout_logprobs.tolist() == [[0.0, 0.0, -1.0, -1.0, 0.0, 0.0, 0.0, -1.0, -1.0]]
    assert int(batch.action_mask.sum()) == 4 and int(batch.lengths[0]) == 9


def test_the_sampler_is_not_compared_at_observations() -> None:
    """Learner and sampler agree about every sampled token; whatever stands elsewhere is no gap."""
    from learner.update.limits import UpdateLimits

    batch = collate([ScoredTrajectory(trajectory=two_turns(), reward=0.5, group_id="g")])
    limits = UpdateLimits(gap_percentile=1.0, max_gap=1e-6)
    gap = SamplerGap(limits, batch, 2, torch.ones(1, dtype=torch.bool))
    gap.add(torch.where(batch.action_mask, batch.rollout_logprobs, 7.0), batch, slice(0, 1))
    assert gap.measure(SingleProcess(), "here")["guard/sampler_gap"].value == 0.0

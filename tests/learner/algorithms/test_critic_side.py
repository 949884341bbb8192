"""DFPO and decoupled VPO: losses against loops, phases of the run, independence of how a batch is split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.flow import flow_times
from learner.algorithms.with_critic.decoupled_vpo import DecoupledVPO
from learner.algorithms.with_critic.dfpo import DFPO
from learner.algorithms.with_critic.dvpo import DVPO
from learner.batch import TrainBatch
from learner.config import LearnerConfig
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from learner.models.flow import FlowHeads, normal_quantiles
from learner.models.spec import CriticConfig, CriticOutput
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_old

F64 = torch.float64
SMALL = {"critic": {"num_heads": 2, "num_quantiles": 40}}
MakeLearner = Callable[..., Learner]


def test_dfpo_loss_equals_the_loop() -> None:
    off = {"cvar_coef": 0.0, "shape_coef": 0.0}
    algorithm = build_algorithm("dfpo", {**SMALL, **off, "geo_coef": 0.3, "anchor_coef": 0.7})
    assert isinstance(algorithm, DFPO)
    batch = make_batch(0)
    old = make_old(algorithm, batch, 1)
    assert old.critic is not None
    estimates = algorithm.estimate(batch, old, SingleProcess())
    g = torch.Generator().manual_seed(2)
    q = old.critic.quantile_values + 0.1
    v, w = (torch.randn(q.shape, generator=g, dtype=F64) for _ in range(2))
    output = CriticOutput(q, torch.zeros_like(batch.rewards), flow_velocity=v, flow_velocity_other=w)
    found = algorithm.critic_loss(output, batch, estimates, counts(batch))
    s, z0, total = algorithm.scale.value, normal_quantiles(40).double(), 0.0
    assert estimates.value_targets is not None
    for b, t in batch.action_mask.nonzero().tolist():
        y = estimates.value_targets[b, t]
        trust = 1 / (1 + float(((q[b, t, 0] - q[b, t, 1]) / 2 / s).square().mean()))
        for head in range(2):
            flow = ((v[b, t, head] - (y - z0)) / s).square().mean()
            geo = ((v[b, t, head] - w[b, t, head]) / s).square().mean()
            anchor = ((q[b, t, head] - y) / s).square().mean()
            total += float(trust * flow + 0.3 * geo + 0.7 * anchor) / 2
    assert found.loss.item() == pytest.approx(total / float(batch.action_mask.sum()), rel=1e-6)
    assert "critic/quantile_huber" not in found.metrics


def test_dfpo_is_a_drop_in_for_dvpo() -> None:
    """The same quantiles give the same advantages and targets; another part of the loss is all that differs."""
    batch = make_batch(1)
    dvpo, dfpo = build_algorithm("dvpo", SMALL), build_algorithm("dfpo", SMALL)
    old = make_old(dvpo, batch, 1)
    one, other = (a.estimate(batch, old, SingleProcess()) for a in (dvpo, dfpo))
    assert torch.equal(one.advantages, other.advantages)
    assert one.value_targets is not None and other.value_targets is not None
    assert torch.equal(one.value_targets, other.value_targets)
    assert isinstance(dvpo, DVPO) and dfpo.critic_config is not None and dfpo.critic_config.head == "flow"


def test_times_of_the_flow_depend_on_row_and_step_only() -> None:
    batch = make_batch(2)
    rows = torch.tensor([3, 0, 6])
    whole = flow_times(batch, 4)
    assert torch.equal(flow_times(batch.rows(rows), 4), whole[rows])
    assert torch.equal(flow_times(batch.cut(9), 4), whole[:, :9])
    assert not torch.equal(flow_times(batch, 5), whole)
    many = torch.cat([flow_times(batch, step).flatten() for step in range(50)])
    assert float(many.min()) >= 0.0 and float(many.max()) < 1.0
    assert float(many.mean()) == pytest.approx(0.5, abs=0.02)
    assert flow_times(batch.rows(rows[:0]), 0).shape == (0, 14, 2)


@pytest.mark.parametrize("preset", ["dfpo", "decoupled-vpo", "vrpo", "vrpo-kl"])
def test_a_placeholder_gives_the_same_outputs(preset: str, make_learner: MakeLearner) -> None:
    """Otherwise ranks that share weights (ZeRO-3) wait for each other for ever in the backward pass."""
    learner = make_learner(preset, SMALL if preset == "dfpo" else {}, num_updates=10)
    assert learner.critic is not None
    names: list[set[str]] = []
    inner = learner.critic.forward

    def forward(**inputs: Any) -> dict[str, torch.Tensor]:
        outputs = inner(**inputs)
        if torch.is_grad_enabled():
            names.append({name for name, value in outputs.items() if value.requires_grad})
        return outputs

    learner.critic.forward = forward  # type: ignore[method-assign]
    learner.update(random_samples(4), 0)
    placeholder = TrainBatch.placeholder()
    inputs = learner.algorithm.critic_inputs(placeholder, None, 0)
    outputs = forward(token_ids=placeholder.token_ids, action_mask=placeholder.action_mask, **inputs)
    assert len(names) >= 2 and all(found == names[0] for found in names)
    assert all(value.isfinite().all() for value in outputs.values())


@pytest.mark.slow
def test_a_flow_learns_a_law_and_shrinks_to_its_mean_on_point_targets() -> None:
    """Atoms of the law as targets give its quantiles; one sampled atom at a time gives its mean (documented)."""
    config = CriticConfig(num_heads=1, num_quantiles=20, head="flow", flow_hidden=16)
    law = 0.5 + 2.0 * normal_quantiles(20)
    hidden, g = torch.ones(64, 3), torch.Generator().manual_seed(0)
    spreads = []
    for points in (False, True):
        heads = FlowHeads(3, config, seed=0)
        optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
        for _ in range(300):
            drawn = law[torch.randint(20, (64, 1), generator=g)].expand(64, 20)
            y = drawn if points else law.expand(64, 20)
            found = heads(hidden, y, torch.rand(64, 2, generator=g))
            loss = (found["flow_velocity"] - (y - normal_quantiles(20))[:, None]).square().mean()
            loss = loss + 0.5 * (found["quantile_values"] - y[:, None]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        q = heads(hidden[:1])["quantile_values"][0, 0].detach()
        assert float(q.mean()) == pytest.approx(0.5, abs=0.4 if points else 0.1)
        spreads.append(float(q.std(correction=0) / law.std(correction=0)))
    assert spreads[0] == pytest.approx(1.0, abs=0.1)
    assert spreads[1] < 0.35


@pytest.mark.parametrize("preset", ["dfpo", "decoupled-vpo"])
def test_the_split_into_micro_batches_changes_nothing(preset: str, make_learner: MakeLearner) -> None:
    options: dict[str, Any] = {"num_minibatches": 2, **(SMALL if preset == "dfpo" else {"pretrain_frac": 0.5})}
    curves = []
    for tokens in (10_000, 60):
        config = LearnerConfig(policy_lr=1e-3, critic_lr=2e-3, micro_batch_tokens=tokens, adam_eps=1e-3)
        learner = make_learner(preset, options, config, num_updates=4)
        curves.append([to_floats(learner.update(random_samples(9, step), step).metrics) for step in range(3)])
    for metrics, expected in zip(curves[1], curves[0], strict=True):
        for key, value in expected.items():
            if not key.startswith("learner/"):
                assert metrics[key] == pytest.approx(value, rel=1e-3, abs=2e-5), key


def test_decoupled_advantages_are_the_values_after_each_token() -> None:
    algorithm = build_algorithm("decoupled-vpo", {"whiten": "none"})
    batch = make_batch(3)
    old = make_old(algorithm, batch, 1)
    assert algorithm.needs_end_values and old.critic is not None and old.critic.end_values is not None
    found = algorithm.estimate(batch, old, SingleProcess())
    values, end = old.critic.quantile_values[..., 0, 0], old.critic.end_values[:, 0, 0]
    for b in range(len(batch)):
        actions = batch.action_mask[b].nonzero().flatten().tolist()
        following = [float(values[b, t]) for t in actions[1:]] + [float(end[b])]
        assert found.advantages[b, actions].tolist() == pytest.approx(following)
    other = replace(batch, scores=batch.scores + 5, rewards=batch.rewards * 3)
    assert torch.equal(algorithm.estimate(other, old, SingleProcess()).advantages, found.advantages)
    values_after = replace(old.critic, end_values=end[:, None, None])
    loss = algorithm.critic_loss(values_after, batch, found, counts(batch)).loss.item()
    assert found.value_targets is not None
    tokens = (values - found.value_targets[..., 0])[batch.action_mask].square().sum() / 2
    ends = (end - batch.scores).square().sum() / 2
    assert loss == pytest.approx(float(tokens + ends) / float(batch.action_mask.sum()), rel=1e-9)


def test_decoupled_trains_the_critic_first_and_then_only_the_policy(make_learner: MakeLearner) -> None:
    config = LearnerConfig(
        policy_lr=1e-3, critic_lr=1e-3, micro_batch_tokens=120, lr_schedule="linear", lr_warmup_frac=0
    )
    learner = make_learner("decoupled-vpo", {"pretrain_frac": 0.5}, config, num_updates=4)
    assert learner.critic is not None
    for step in range(4):
        before = [dict(e.full_weights()) for e in (learner.policy, learner.critic)]
        metrics = learner.update(random_samples(6, step), step).metrics
        after = [dict(e.full_weights()) for e in (learner.policy, learner.critic)]
        moved = [any(not torch.equal(b[name], a[name]) for name in b) for b, a in zip(before, after, strict=True)]
        assert moved == [step >= 2, step < 2]
        assert ("critic/loss" in metrics, "policy/loss" in metrics) == (step < 2, step >= 2)
        if step == 3:
            assert to_floats(metrics)["policy/lr"] == pytest.approx(0.5e-3)  # the second of two updates
    algorithm = learner.algorithm
    assert isinstance(algorithm, DecoupledVPO)
    assert [algorithm.critic_only_updates(n) for n in (1, 2, 3, 500)] == [0, 1, 2, 250]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dfpo", {"huber_kappa": 0.5}, "huber_kappa has no effect in dfpo"),
        ("dfpo", {"critic": {"head": "quantile"}}, "algorithm.critic.head: must be 'flow'"),
        ("decoupled-vpo", {"lam_actor": 0.5}, "lam_actor has no effect with target 'after_token'"),
        ("decoupled-vpo", {"pretrain_frac": 1.0}, "algorithm.pretrain_frac"),
        ("vrpo", {"critic": {"head": "flow"}}, "a flow head does not go on a latent"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert message in str(caught.value)

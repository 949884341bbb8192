"""Robust Bellman PPO and the CQL analogues: reductions to PPO, targets token by token, conservatism. Method 9."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.records import Estimates
from learner.batch import TrainBatch
from learner.maths.collective import SingleProcess
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_loss
from learner.maths.quantiles.worst_case import worst_cvar, worst_kl, worst_tv
from learner.metrics import to_floats
from learner.models.spec import CriticOutput
from rollout.component import UserError
from tests.learner.oracles import grad_of, on_ranks
from tests.learner.random_batches import counts, make_batch, make_critic, make_old, take

F64 = torch.float64
CALM = settings(max_examples=20, deadline=None)
LAW = {"critic": {"num_heads": 2, "num_quantiles": 16}}
SETS: dict[str, dict[str, Any]] = {
    "min_heads": {"critic": {"num_heads": 3}},
    "contamination": {"rho": 0.2, "critic": {"num_heads": 2}},
    "cvar": {"alpha": 0.3, **LAW},
    "tv": {"rho": 0.15, **LAW},
    "kl": {"rho": 0.1, **LAW},
}
NEUTRAL = {
    "min_heads": {},
    "contamination": {"rho": 0.0},
    "cvar": {"alpha": 1.0},
    "tv": {"rho": 0.0},
    "kl": {"rho": 0.0},
}


def critic_loss(algorithm: Any, estimates: Estimates, q: Tensor, batch: TrainBatch) -> Tensor:
    loss: Tensor = algorithm.critic_loss(CriticOutput(q, batch.rewards), batch, estimates, counts(batch)).loss
    return loss


def later(critic: CriticOutput, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    q = critic.quantile_values
    return (q + 0.3 * torch.randn(q.shape, generator=g, dtype=q.dtype)).sort(-1).values


def assert_equals_ppo(algorithm: Any, ppo: Any, seed: int) -> None:
    """Bit for bit: advantages, targets, critic loss and its gradient."""
    batch = make_batch(seed)
    old = make_old(ppo, batch, seed)
    assert old.critic is not None
    one, two = (a.estimate(batch, old, SingleProcess()) for a in (algorithm, ppo))
    assert torch.equal(one.advantages, two.advantages)
    assert torch.equal(one.value_targets, two.value_targets)
    q = later(old.critic, seed)
    pairs = ((algorithm, one), (ppo, two))

    def slope(method: Any, estimates: Estimates) -> Tensor:
        return grad_of(lambda x: critic_loss(method, estimates, x, batch), q)

    assert torch.equal(*(critic_loss(a, e, q, batch) for a, e in pairs))
    assert torch.equal(*(slope(a, e) for a, e in pairs))


@pytest.mark.parametrize("kind", SETS)
@given(seed=st.integers(0, 500), truncated=st.booleans())
@CALM
def test_neutral_settings_are_ppo_bit_for_bit(kind: str, seed: int, truncated: bool) -> None:
    """Invariant 3: rho = 0, or one head."""
    shared = {"bootstrap_truncated": truncated, "critic": {"num_heads": 1}}
    robust = build_algorithm("robust_bellman", {"uncertainty": kind, **NEUTRAL[kind], **shared})
    assert_equals_ppo(robust, build_algorithm("ppo", shared), seed)


@given(seed=st.integers(0, 500))
@CALM
def test_a_neutral_quantile_critic_gives_ppo_advantages(seed: int) -> None:
    """Invariant 3 for laws: with rho = 0 advantages and targets are PPO's for V = mean quantile."""
    batch = make_batch(seed)
    for kind in ("cvar", "tv", "kl"):
        robust = build_algorithm("robust_bellman", {"uncertainty": kind, **SETS[kind], **NEUTRAL[kind]})
        old = make_old(robust, batch, seed)
        assert old.critic is not None
        mean = old.critic.quantile_values.mean(dim=-2).mean(dim=-1)[..., None, None]
        scalar = replace(old, critic=CriticOutput(mean, old.critic.raw_crossing_frac))
        one = robust.estimate(batch, old, SingleProcess())
        two = build_algorithm("ppo").estimate(batch, scalar, SingleProcess())
        assert torch.equal(one.advantages, two.advantages)
        assert one.value_targets is not None and two.value_targets is not None
        assert torch.equal(one.value_targets, two.value_targets)


def worst_by_hand(kind: str, heads: Tensor, lowest: Tensor) -> Tensor:
    """Vrob of each state, [... head M]; the sets themselves are tested beside their definitions."""
    law = heads.mean(dim=-2)
    return {
        "min_heads": lambda: heads.mean(dim=-1).amin(dim=-1),
        "contamination": lambda: 0.8 * law.mean(dim=-1) + 0.2 * lowest,
        "cvar": lambda: worst_cvar(law, 0.3),
        "tv": lambda: worst_tv(law, 0.15),
        "kl": lambda: worst_kl(law, 0.1),
    }[kind]()


@pytest.mark.parametrize("kind", SETS)
@given(seed=st.integers(0, 500), truncated=st.booleans())
@CALM
def test_targets_token_by_token(kind: str, seed: int, truncated: bool) -> None:
    """Y_t = r_t + gamma * ((1 - lam) * Vrob_{t+1} + lam * Y_{t+1}), A_t = Y_t - V_t; and the pessimism reported."""
    options = {"gamma": 0.97, "lam_actor": 0.8, "lam_critic": 0.6, "whiten": "none", "bootstrap_truncated": truncated}
    algorithm = build_algorithm("robust_bellman", {"uncertainty": kind, **SETS[kind], **options})
    batch = make_batch(seed)
    old = make_old(algorithm, batch, seed)
    assert old.critic is not None
    q, end = old.critic.quantile_values, old.critic.end_values
    assert end is not None
    lowest = q.mean(dim=(-1, -2))[batch.action_mask].min()
    worst, worst_end = (worst_by_hand(kind, x, lowest) for x in (q, end))
    found = algorithm.estimate(batch, old, SingleProcess())
    assert found.value_targets is not None
    lowered = []
    for b in range(len(batch)):
        cut = truncated and bool(batch.truncated[b])
        after = float(worst_end[b]) if cut else 0.0
        plain_after = float(end[b].mean()) if cut else 0.0
        y = dict.fromkeys((0.8, 0.6), after)
        plain = plain_after
        for t in batch.action_mask[b].nonzero().flatten().flip(0).tolist():
            r, value = float(batch.rewards[b, t]), float(q[b, t].mean())
            for lam in y:
                y[lam] = r + 0.97 * ((1 - lam) * after + lam * y[lam])
            plain = r + 0.97 * (0.4 * plain_after + 0.6 * plain)
            assert found.advantages[b, t].item() == pytest.approx(y[0.8] - value, abs=1e-9)
            assert found.value_targets[b, t, 0].item() == pytest.approx(y[0.6], abs=1e-9)
            lowered.append(plain - y[0.6])
            after, plain_after = float(worst[b, t]), value
    metrics = to_floats(found.metrics)
    assert metrics["critic/target_pessimism"] == pytest.approx(sum(lowered) / len(lowered), abs=1e-9)
    assert metrics["critic/target_pessimism_max"] == pytest.approx(max(lowered), abs=1e-9)
    assert metrics["critic/pessimism"] >= -1e-12


def test_pessimism_adds_up_along_the_response() -> None:
    """Method 5 [D]: a gap e lowers early targets by about (1 - lam) * T * e; lam = 1 has none."""
    seq, gap = 201, 0.01
    whole = make_batch(0, rows=1, seq=7)
    mask = torch.ones(1, seq, dtype=torch.bool)
    mask[0, 0] = False
    zeros = torch.zeros(1, seq, dtype=F64)
    batch = replace(whole, action_mask=mask, rewards=zeros, scores=zeros[:, 0], attention_mask=mask)
    heads = torch.stack([zeros, zeros + 2 * gap], dim=-1)[..., None]  # mean gap, least 0
    for lam, expected in ((0.95, 0.05 * 199 * gap), (1.0, 0.0)):
        algorithm = build_algorithm("robust-bellman", {"lam_critic": lam, "critic": {"num_heads": 2}})
        old = replace(make_old(algorithm, whole, 0), logprobs=zeros, critic=CriticOutput(heads, zeros))
        metrics = to_floats(algorithm.estimate(batch, old, SingleProcess()).metrics)
        assert metrics["critic/pessimism"] == pytest.approx(gap)
        assert metrics["critic/target_pessimism_max"] <= expected + 1e-12
    # the heads never learn here, so the sum is that of a geometric series: (1 - lam) * e * sum of lam^k
    algorithm = build_algorithm("robust-bellman", {"lam_critic": 0.95, "critic": {"num_heads": 2}})
    metrics = to_floats(algorithm.estimate(batch, old, SingleProcess()).metrics)
    assert metrics["critic/target_pessimism_max"] == pytest.approx(gap * (1 - 0.95**199), rel=1e-6)


def test_quantile_heads_regress_to_the_point_target() -> None:
    algorithm, again = build_algorithm("rfqi", LAW), build_algorithm("rfqi", LAW)
    assert isinstance(algorithm, ActorCritic) and isinstance(again, ActorCritic)
    batch = make_batch(0)
    old = make_old(algorithm, batch, 1)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    assert old.critic is not None and estimates.value_targets is not None and estimates.old_values is None
    q, s, mask = later(old.critic, 2), algorithm.scale.value, batch.action_mask
    loss = quantile_huber_loss(
        q[mask] / s, estimates.value_targets[mask][:, None] / s, midpoint_taus(16, dtype=F64), 0.05
    )
    assert critic_loss(algorithm, estimates, q, batch).item() == pytest.approx(loss.mean().item(), rel=1e-9)
    assert to_floats(estimates.metrics)["critic/scale"] == s
    again.load_state_dict(algorithm.state_dict())
    assert again.scale.value == s


@pytest.mark.parametrize("kind", SETS)
def test_estimates_do_not_depend_on_ranks_or_masked_values(kind: str) -> None:
    options = {"uncertainty": kind, **SETS[kind]}
    batch = make_batch(2)
    old = make_old(build_algorithm("robust_bellman", options), batch, 1)
    whole = build_algorithm("robust_bellman", options).estimate(batch, old, SingleProcess())
    rows = [torch.tensor([3, 0, 7]), torch.tensor([], dtype=torch.long), torch.tensor([6, 5, 1, 2, 4])]

    def work(world: Any) -> Estimates:
        mine = rows[world.rank]
        return build_algorithm("robust_bellman", options).estimate(batch.rows(mine), take(old, mine), world)

    for part, mine in zip(on_ranks(3, work), rows, strict=True):
        assert torch.allclose(part.advantages, whole.advantages[mine], rtol=1e-9, atol=1e-12)
    assert old.critic is not None
    dirty = old.critic.quantile_values.masked_fill(~batch.action_mask[..., None, None], torch.nan)
    bad = replace(old, critic=replace(old.critic, quantile_values=dirty))
    found = build_algorithm("robust_bellman", options).estimate(batch, bad, SingleProcess())
    assert torch.equal(found.advantages, whole.advantages)
    assert all(torch.isfinite(torch.tensor(x)) for x in to_floats(found.metrics).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uncertainty": "tv"}, "critic.num_quantiles must be above 1"),
        ({"uncertainty": "cvar"}, "critic.num_quantiles must be above 1"),
        ({"uncertainty": "contamination", "rho": 1.0}, "algorithm.rho: must be less than 1"),
    ],
)
def test_sets_that_cannot_work_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_algorithm("robust_bellman", options)


# --- CQL ---


@given(seed=st.integers(0, 500))
@CALM
def test_neutral_cql_is_ppo_bit_for_bit(seed: int) -> None:
    """Invariant 3: w = 1 and alpha = 0."""
    neutral = build_algorithm("cql", {"asym_weight": 1.0, "contrast_coef": 0.0})
    assert not neutral.needs_contrast
    assert_equals_ppo(neutral, build_algorithm("ppo"), seed)


def test_asym_learns_an_expectile() -> None:
    """The minimiser of sum w(V > R) (V - R)^2 is the expectile at 1 / (1 + w): weighted gaps sum to 0."""
    algorithm = build_algorithm("cql-asym", {"asym_weight": 4.0, "value_clip": None, "lam_critic": 1.0})
    batch = make_batch(5)
    old = make_old(algorithm, batch, 1)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    assert estimates.value_targets is not None
    goals = estimates.value_targets[batch.action_mask].flatten()
    value = torch.zeros((), dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([value], max_iter=100, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        q = value.expand(*batch.action_mask.shape, 1, 1)
        loss = critic_loss(algorithm, estimates, q, batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    gaps = goals - value.detach()
    tau = 1 / (1 + 4.0)
    assert float(tau * gaps.clamp(min=0).sum() - (1 - tau) * (-gaps).clamp(min=0).sum()) == pytest.approx(0, abs=1e-6)
    assert value.item() < goals.mean().item()


def test_the_contrast_by_hand() -> None:
    """alpha * (mean V(mismatched) - mean V(s)), each trajectory alike, clamped values without gradient."""
    algorithm = build_algorithm("cql-contrast", {"contrast_coef": 0.5, "critic": {"num_heads": 2}})
    ppo = build_algorithm("ppo", {"critic": {"num_heads": 2}})
    assert algorithm.needs_contrast
    batch, other = make_batch(0), make_batch(9)
    old = make_old(ppo, batch, 1)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    assert old.critic is not None
    q, far = later(old.critic, 3), 3 * make_critic(ppo, other, 4).quantile_values

    def mean(values: Tensor, mask: Tensor) -> float:
        clamped = values.mean(dim=(-1, -2)).clamp(0.0, 1.0)
        return sum(float(clamped[b][mask[b]].mean()) for b in range(len(mask))) / len(mask)

    extra = critic_loss(algorithm, estimates, q, batch) - critic_loss(ppo, estimates, q, batch)
    assert extra.item() == pytest.approx(-0.5 * mean(q, batch.action_mask), rel=1e-9)
    lonely = replace(batch, group_ids=torch.zeros_like(batch.group_ids))  # no other prompt: no contrast either
    alone = algorithm.estimate(lonely, old, SingleProcess())
    assert torch.equal(critic_loss(algorithm, alone, q, batch), critic_loss(ppo, alone, q, batch))
    result = algorithm.contrast_loss(CriticOutput(far, other.rewards), other, counts(other))
    assert result.loss.item() == pytest.approx(0.5 * mean(far, other.action_mask), rel=1e-9)
    assert to_floats(result.metrics)["critic/mismatched_value"] == pytest.approx(mean(far, other.action_mask), rel=1e-9)
    grad = grad_of(lambda x: algorithm.contrast_loss(CriticOutput(x, other.rewards), other, counts(other)).loss, far)
    inside = (far.mean(dim=(-1, -2)) > 0) & (far.mean(dim=(-1, -2)) < 1) & other.action_mask
    assert torch.equal(grad.abs().sum(dim=(-1, -2)) > 0, inside)

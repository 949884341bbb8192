"""PPO and DVPO as algorithms: what reduces to what, splits, ranks, state. Numbers name the invariants."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import HeadMask
from learner.algorithms.records import Estimates, OldOutputs
from learner.algorithms.with_critic.dvpo import DVPO
from learner.batch import TrainBatch
from learner.maths.collective import SingleProcess
from learner.maths.quantiles.quantiles import lower_cvar, midpoint_taus, quantile_huber_loss, upper_cvar
from learner.maths.returns import discounted_returns, gae, quantile_gae
from learner.metrics import to_floats
from learner.models.spec import CriticOutput
from tests.learner.oracles import grad_of, on_ranks
from tests.learner.random_batches import counts, make_batch, make_critic, make_old, policy_inputs, take

F64 = torch.float64
CALM = settings(max_examples=20, deadline=None)
TERMS = ("risk", "cvar", "gain", "shift", "shape", "curvature", "consistency")
NEUTRAL: dict[str, Any] = {f"{name}_coef": 0.0 for name in TERMS}
SMALL: dict[str, Any] = {"critic": {"num_heads": 2, "num_quantiles": 40}}
EVERYTHING: dict[str, Any] = {
    **SMALL,
    "head_bootstrap_p": 0.7,
    "value_clip": 0.3,
    "shift_form": "batch_hinge",
    "shape_ref": "old",
    "kl_coef": 0.1,
    "kl_mode": "reward",
    "entropy_coef": 0.01,
    "reward_correction": ["percentile_clip"],
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", {}),
    "ppo-ensemble": ("ppo", {"critic": {"num_heads": 3}, "whiten": "mad", "adv_clip": 2.0}),
    "dvpo": ("dvpo", SMALL),
    "dvpo-literal": ("dvpo-literal", SMALL),
    "dvpo-everything": ("dvpo", EVERYTHING),
    "dvpo-mc": (
        "dvpo",
        {**SMALL, "target_mode": "mc", "curvature_coef": 0.01, "curvature_form": "smooth", "adv_aggregate": "trimmed"},
    ),
    "dvpo-quantile-wise": ("dvpo", {**SMALL, "target_mode": "quantile_wise", "adv_aggregate": "cvar_blend"}),
    "dvpo-unsorted": ("dvpo", {**NEUTRAL, "critic": {**SMALL["critic"], "monotonicity": "none"}}),
}


def build(variant: str, **changes: Any) -> ActorCritic:
    name, options = VARIANTS[variant]
    algorithm = build_algorithm(name, {**options, **changes})
    assert isinstance(algorithm, ActorCritic)
    return algorithm


def prepared(variant: str, seed: int = 0, **changes: Any) -> tuple[ActorCritic, TrainBatch, OldOutputs, Estimates]:
    algorithm, batch = build(variant, **changes), make_batch(seed)
    old = make_old(algorithm, batch, seed + 1)
    return algorithm, batch, old, algorithm.estimate(batch, old, SingleProcess())


def moved(critic: CriticOutput, seed: int) -> CriticOutput:
    """The critic a little later."""
    g = torch.Generator().manual_seed(seed)
    q = critic.quantile_values
    return replace(critic, quantile_values=(q + 0.1 * torch.randn(q.shape, generator=g, dtype=q.dtype)).sort(-1).values)


# --- reductions ---


@given(seed=st.integers(0, 500), lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]), gamma=st.sampled_from([0.9, 1.0]))
@CALM
def test_one_quantile_is_ppo_bit_for_bit(seed: int, lam: float, gamma: float) -> None:
    """Invariant 1: N = 1, M = 1, no further terms, kappa >= |u|: PPO's advantages and targets exactly, and its squared
    error times 1 / (2 kappa s) once values are divided by s; gradients in proportion."""
    shared = {"lam_actor": lam, "lam_critic": lam, "gamma": gamma}
    options = {**shared, **NEUTRAL, "critic": {"num_heads": 1, "num_quantiles": 1}, "huber_kappa": 50.0}
    dvpo = build_algorithm("dvpo", {**options, "target_mode": "quantile_wise"})
    ppo = build_algorithm("ppo", {**shared, "value_clip": None})
    batch = make_batch(seed)
    old = make_old(ppo, batch, seed)
    assert old.critic is not None
    one, two = (algorithm.estimate(batch, old, SingleProcess()) for algorithm in (dvpo, ppo))
    assert torch.equal(one.advantages, two.advantages)
    assert one.value_targets is not None and two.value_targets is not None
    assert torch.equal(one.value_targets, two.value_targets)
    assert isinstance(dvpo, DVPO)
    now, s = moved(old.critic, seed), dvpo.scale.value
    inputs = policy_inputs(ppo, batch, old, old.logprobs + 0.1)
    policies = [a.policy_loss(inputs, e, counts(batch)).loss for a, e in ((dvpo, one), (ppo, two))]
    assert torch.equal(*policies)

    def loss(algorithm: Any, estimates: Estimates, q: Tensor) -> Tensor:
        output = CriticOutput(q, torch.zeros_like(batch.rewards))
        found: Tensor = algorithm.critic_loss(output, batch, estimates, counts(batch)).loss
        return found

    def slope(algorithm: Any, estimates: Estimates) -> Tensor:
        return grad_of(lambda x: loss(algorithm, estimates, x), now.quantile_values)

    q = now.quantile_values
    factor = 1 / (2 * 50.0 * s * s)
    assert loss(dvpo, one, q).item() == pytest.approx(factor * loss(ppo, two, q).item(), rel=1e-9)
    grads = [slope(dvpo, one), slope(ppo, two)]
    assert torch.allclose(grads[0], factor * grads[1], rtol=1e-9, atol=1e-15)


@given(seed=st.integers(0, 500), mode=st.sampled_from(["mixture", "quantile_wise", "mc"]))
@CALM
def test_the_mean_read_out_gives_ppo_advantages(seed: int, mode: str) -> None:
    """Invariant 2: any M and N, any target mode; V = mean quantile."""
    dvpo, ppo = build_algorithm("dvpo", {**SMALL, "target_mode": mode}), build_algorithm("ppo")
    batch = make_batch(seed)
    old = make_old(dvpo, batch, seed)
    assert old.critic is not None
    mean = old.critic.quantile_values.mean(dim=(-1, -2), keepdim=True)
    scalar = replace(old, critic=CriticOutput(mean, old.critic.raw_crossing_frac))
    one, two = dvpo.estimate(batch, old, SingleProcess()), ppo.estimate(batch, scalar, SingleProcess())
    assert torch.allclose(one.advantages, two.advantages, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("aggregate", ["mean", "trimmed", "spectral", "cvar_blend"])
def test_read_outs_are_scalar_gae_of_weighted_quantiles(aggregate: str) -> None:
    """Method 3.5 with F1: the weights, found from unit vectors, are >= 0, sum to 1, and commute with GAE."""
    readouts: dict[str, dict[str, Any]] = {
        "trimmed": {"trim_low": 0.25, "trim_high": 0.1},
        "spectral": {"spectral_eta": 2.0},
        "cvar_blend": {"blend_lower": 0.3, "blend_upper": 0.2},
    }
    options = readouts.get(aggregate, {})
    algorithm, batch, old, _ = prepared("dvpo", adv_aggregate=aggregate, whiten="none", **options)
    assert old.critic is not None
    weights = algorithm.side.readout(torch.eye(40, dtype=F64))
    assert (weights >= 0).all() and weights.sum().item() == pytest.approx(1.0)
    q = old.critic.quantile_values.mean(dim=-2)
    each, _ = quantile_gae(batch.rewards, q, batch.action_mask, 1.0, 0.95)
    found = algorithm.estimate(batch, old, SingleProcess()).advantages
    assert torch.allclose(found, each @ weights, rtol=1e-9, atol=1e-9)
    row = q[0, 2]
    expected = {
        "mean": row.mean(),
        "trimmed": row[10:36].mean(),
        "spectral": (row * torch.softmax(-2.0 * midpoint_taus(40, dtype=F64), 0)).sum(),
        "cvar_blend": 0.5 * row.mean() + 0.3 * lower_cvar(row, 0.1) + 0.2 * upper_cvar(row, 0.1),
    }[aggregate]
    assert torch.allclose(algorithm.side.readout(row), expected, rtol=1e-9)


# --- Eq 11 ---


def test_eq_11_is_the_weighted_sum_of_its_terms() -> None:
    """Each term alone, raw from the metrics, times its weight; nothing else is in the loss."""
    algorithm, batch, old, estimates = prepared("dvpo", curvature_coef=0.01)
    assert old.critic is not None
    output = moved(old.critic, 5)
    result = algorithm.critic_loss(output, batch, estimates, counts(batch))
    values = to_floats(result.metrics)
    weights = {"risk_huber": 0.1, "lower_cvar": 0.1, "upper_gain": 0.1, "mean_shift": 0.1, "tail_shape": 0.05}
    weights |= {"tail_curvature": 0.01, "head_consistency": 0.1, "quantile_huber": 1.0}
    assert {key for key in values if not key.endswith("_weighted")} == {f"critic/{name}" for name in weights}
    assert all(values[f"critic/{n}_weighted"] == pytest.approx(w * values[f"critic/{n}"]) for n, w in weights.items())
    assert result.loss.item() == pytest.approx(sum(w * values[f"critic/{n}"] for n, w in weights.items()), rel=1e-9)
    assert isinstance(algorithm, DVPO) and estimates.value_targets is not None
    s, mask = algorithm.scale.value, batch.action_mask
    q, y = output.quantile_values[mask] / s, estimates.value_targets[mask][:, None] / s
    core = quantile_huber_loss(q, y, midpoint_taus(40, dtype=F64), 0.05).mean()
    assert values["critic/quantile_huber"] == pytest.approx(core.item(), rel=1e-9)


@pytest.mark.parametrize("name", TERMS)
def test_every_term_has_its_own_switch(name: str) -> None:
    reported = {
        "risk": "risk_huber",
        "cvar": "lower_cvar",
        "gain": "upper_gain",
        "shift": "mean_shift",
        "shape": "tail_shape",
        "curvature": "tail_curvature",
        "consistency": "head_consistency",
    }
    algorithm, batch, old, estimates = prepared("dvpo", **{**NEUTRAL, f"{name}_coef": 0.5})
    assert old.critic is not None
    result = algorithm.critic_loss(moved(old.critic, 1), batch, estimates, counts(batch))
    keys = {key for key in result.metrics if not key.endswith("_weighted")}
    assert keys == {"critic/quantile_huber", f"critic/{reported[name]}"}
    values = to_floats(result.metrics)
    assert result.loss.item() == pytest.approx(
        values["critic/quantile_huber"] + 0.5 * values[f"critic/{reported[name]}"], rel=1e-9
    )


def test_loss_does_not_depend_on_the_unit_of_rewards() -> None:
    """Method 3.4: values and targets are divided by the running scale first."""
    losses = []
    for unit in (1.0, 100.0):
        algorithm, batch = build("dvpo"), make_batch(0)
        old = make_old(algorithm, batch, 1)
        assert old.critic is not None
        scaled = replace(old.critic, quantile_values=unit * old.critic.quantile_values)
        batch = replace(batch, rewards=unit * batch.rewards, scores=unit * batch.scores)
        estimates = algorithm.estimate(batch, replace(old, critic=scaled), SingleProcess())
        later = replace(scaled, quantile_values=unit * moved(old.critic, 2).quantile_values)
        losses.append(algorithm.critic_loss(later, batch, estimates, counts(batch)).loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


def test_head_bootstrap_masks_whole_trajectories_per_head() -> None:
    """A head that a trajectory is not for gets no gradient from it, save by consistency; the rest is scaled up."""
    algorithm, batch, old, estimates = prepared("dvpo", head_bootstrap_p=0.5, consistency_coef=0.0)
    assert old.critic is not None
    carried = estimates.carried(HeadMask, HeadMask)
    assert carried is not None
    factors = carried.factors
    assert factors.shape == (8, 1, 2) and set(factors.flatten().tolist()) == {0.0, 2.0}
    plain, _, _, same = prepared("dvpo", consistency_coef=0.0)
    q = moved(old.critic, 1).quantile_values

    def loss(which: ActorCritic, what: Estimates, x: Tensor) -> Tensor:
        return which.critic_loss(CriticOutput(x, batch.rewards), batch, what, counts(batch)).loss

    masked = grad_of(lambda x: loss(algorithm, estimates, x), q)
    full = grad_of(lambda x: loss(plain, same, x), q)
    assert torch.allclose(masked, full * factors[:, :, :, None], rtol=1e-9, atol=1e-15)


def test_batch_hinge_is_one_hinge_on_batch_means() -> None:
    """Eq 7: max(0, mean Y - mean q) of the batch where the targets are above the old critic, and 0 where below."""
    for offset, sign in ((-5.0, 1.0), (5.0, 0.0)):
        algorithm, batch = build("dvpo", shift_form="batch_hinge", target_mode="mc"), make_batch(0)
        old = make_old(algorithm, batch, 1)
        assert old.critic is not None
        shifted = replace(old.critic, quantile_values=old.critic.quantile_values + offset)
        estimates = algorithm.estimate(batch, replace(old, critic=shifted), SingleProcess())
        result = algorithm.critic_loss(shifted, batch, estimates, counts(batch))
        assert isinstance(algorithm, DVPO)
        mask = batch.action_mask
        gap = discounted_returns(batch.rewards, mask, 1.0)[mask].mean() - shifted.quantile_values[mask].mean()
        found = to_floats(result.metrics)["critic/mean_shift"]
        assert found == pytest.approx(sign * max(0.0, gap.item()) / algorithm.scale.value, rel=1e-9)


def test_value_clip_per_quantile_keeps_the_larger_loss() -> None:
    algorithm, batch, old, estimates = prepared("dvpo", **NEUTRAL, value_clip=0.05)
    plain, _, _, same = prepared("dvpo", **NEUTRAL)
    assert old.critic is not None and estimates.old_values is not None
    far = moved(old.critic, 3)
    clipped, free = (
        a.critic_loss(far, batch, e, counts(batch)).loss.item() for a, e in ((algorithm, estimates), (plain, same))
    )
    assert clipped > free
    near = replace(old.critic, quantile_values=old.critic.quantile_values + 0.04)
    clipped, free = (
        a.critic_loss(near, batch, e, counts(batch)).loss.item() for a, e in ((algorithm, estimates), (plain, same))
    )
    assert clipped == pytest.approx(free, rel=1e-9)


# --- splits, ranks, masks ---


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_do_not_depend_on_the_split(variant: str) -> None:
    """Invariant 23: micro-batches, padding and the order of rows."""
    algorithm, batch, old, estimates = prepared(variant)
    assert old.critic is not None
    later, logprobs = moved(old.critic, 2), old.logprobs + 0.1
    whole_critic = algorithm.critic_loss(later, batch, estimates, counts(batch)).loss.item()
    whole_policy = algorithm.policy_loss(
        policy_inputs(algorithm, batch, old, logprobs), estimates, counts(batch)
    ).loss.item()
    critic = policy = 0.0
    for rows in (torch.tensor([6, 1]), torch.tensor([0, 2, 3, 4, 5]), torch.tensor([7])):
        longest = int(batch.lengths[rows].max())
        part, old_part, estimate = batch.rows(rows).cut(longest), take(old, rows), estimates.rows(rows)
        reference = None if old_part.ref_logprobs is None else old_part.ref_logprobs[:, :longest]
        estimate = estimate.cut((slice(None), slice(longest)))
        output = replace(later, quantile_values=later.quantile_values[rows][:, :longest])
        critic += algorithm.critic_loss(output, part, estimate, counts(batch)).loss.item()
        old_part = replace(old_part, logprobs=old_part.logprobs[:, :longest], ref_logprobs=reference)
        inputs = policy_inputs(algorithm, part, old_part, logprobs[rows][:, :longest])
        policy += algorithm.policy_loss(inputs, estimate, counts(batch)).loss.item()
    assert critic == pytest.approx(whole_critic, rel=1e-9)
    assert policy == pytest.approx(whole_policy, rel=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_estimates_do_not_depend_on_the_ranks(variant: str) -> None:
    """Three ranks, one of them without rows: the same numbers row by row, and equal state everywhere."""
    algorithm, batch, old, whole = prepared(variant)
    rows = [torch.tensor([3, 0, 7]), torch.tensor([], dtype=torch.long), torch.tensor([6, 5, 1, 2, 4])]

    def work(world: Any) -> tuple[Estimates, dict[str, Any]]:
        mine = build(variant)
        return mine.estimate(batch.rows(rows[world.rank]), take(old, rows[world.rank]), world), mine.state_dict()

    for (part, state), index in zip(on_ranks(3, work), rows, strict=True):
        assert torch.allclose(part.advantages, whole.advantages[index], rtol=1e-9, atol=1e-12)
        assert whole.value_targets is not None and part.value_targets is not None
        assert torch.allclose(part.value_targets, whole.value_targets[index], rtol=1e-12)
        assert [type(rows) for rows in part.extra.values()] == [type(rows) for rows in whole.extra.values()]
        for some, every in zip(part.extra.values(), whole.extra.values(), strict=True):  # pieces are keys: others here
            assert some.tensors().keys() == every.tensors().keys()
            assert all(torch.equal(x, every.take(index).tensors()[name]) for name, x in some.tensors().items())
        if "scale" in state:
            assert state["scale"]["total"] == pytest.approx(algorithm.state_dict()["scale"]["total"], rel=1e-12)
    everywhere = [state for _, state in on_ranks(3, work)]
    assert everywhere[0] == everywhere[1] == everywhere[2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_tokens_get_nothing_and_give_nothing(variant: str) -> None:
    """Invariant 22: NaN at masked positions of every model output; an all-masked batch; no gradient there."""
    algorithm, batch, old, estimates = prepared(variant)
    assert old.critic is not None
    mask = batch.action_mask
    dirty = lambda x: x.masked_fill(~mask.reshape(mask.shape + (1,) * (x.dim() - 2)), torch.nan)  # noqa: E731
    bad = OldOutputs(
        dirty(old.logprobs),
        None if old.ref_logprobs is None else dirty(old.ref_logprobs),
        replace(old.critic, quantile_values=dirty(old.critic.quantile_values)),
    )
    again = build(variant).estimate(batch, bad, SingleProcess())
    assert torch.allclose(again.advantages, estimates.advantages, rtol=1e-12)
    assert all(torch.isfinite(torch.tensor(x)) for x in to_floats(again.metrics).values())
    later, logprobs = moved(old.critic, 2).quantile_values, old.logprobs + 0.1

    def critic(q: Tensor, b: TrainBatch = batch) -> Tensor:
        return algorithm.critic_loss(CriticOutput(q, b.rewards), b, estimates, counts(b)).loss

    def policy(x: Tensor, b: TrainBatch = batch) -> Tensor:
        return algorithm.policy_loss(policy_inputs(algorithm, b, bad, x), estimates, counts(b)).loss

    nobody = replace(batch, action_mask=torch.zeros_like(mask))
    for loss, clean in ((critic, later), (policy, logprobs)):
        assert loss(dirty(clean)).item() == pytest.approx(loss(clean).item(), rel=1e-12)
        grad = grad_of(loss, dirty(clean))
        assert grad.isfinite().all() and (grad[~mask] == 0).all() and (grad[mask] != 0).any()
        assert loss(dirty(clean), nobody).item() == 0.0
        assert (grad_of(partial(loss, b=nobody), clean) == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_estimates_are_detached_and_metrics_finite(variant: str) -> None:
    algorithm, batch, old, _ = prepared(variant)
    assert old.critic is not None
    leaf = old.critic.quantile_values.clone().requires_grad_()
    estimates = algorithm.estimate(
        batch, replace(old, critic=replace(old.critic, quantile_values=leaf)), SingleProcess()
    )
    carried = [x for rows in estimates.extra.values() for x in rows.tensors().values()]
    held = [estimates.advantages, estimates.value_targets, estimates.old_values, *carried]
    assert not any(x.requires_grad for x in held if x is not None)
    assert (estimates.advantages[~batch.action_mask] == 0).all()
    if algorithm.config.whiten == "std":
        population = estimates.advantages[batch.action_mask]
        assert population.mean().item() == pytest.approx(0.0, abs=1e-9)
        assert population.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    assert estimates.value_targets is not None
    assert (estimates.value_targets.diff(dim=-1) >= 0).all()


# --- the rest ---


def test_old_logprobs_are_not_needed_without_kl_in_the_reward() -> None:
    """The learner may skip them: estimation then gets NaN."""
    algorithm, batch, old, estimates = prepared("dvpo")
    assert not algorithm.needs_old_logprobs
    blind = algorithm.estimate(batch, replace(old, logprobs=torch.full_like(old.logprobs, torch.nan)), SingleProcess())
    assert torch.equal(blind.advantages, estimates.advantages)


def test_importance_weights_are_on_by_default_and_can_be_left_out() -> None:
    algorithm, batch, old, estimates = prepared("ppo")
    free = build("ppo", importance_cap=None)
    on, off = (
        a.policy_loss(policy_inputs(a, batch, old, old.logprobs), estimates, counts(batch)) for a in (algorithm, free)
    )
    mask = batch.action_mask
    weight = (old.logprobs - batch.rollout_logprobs)[mask].exp().clamp(max=2.0)
    n = mask.sum().item()
    assert on.loss.item() == pytest.approx(-(weight * estimates.advantages[mask]).sum().item() / n, rel=1e-9)
    assert off.loss.item() == pytest.approx(-estimates.advantages[mask].sum().item() / n, abs=1e-9)
    assert "policy/importance_truncated_frac" not in off.metrics


def test_kl_in_the_reward_reaches_advantages_and_targets() -> None:
    _, batch, old, estimates = prepared("ppo", kl_coef=0.2, kl_mode="reward", whiten="none")
    assert old.critic is not None and old.ref_logprobs is not None
    rewards = batch.rewards - 0.2 * (old.logprobs - old.ref_logprobs)
    values = old.critic.quantile_values.squeeze(-1).squeeze(-1)
    advantages, returns = gae(rewards, values, batch.action_mask, 1.0, 0.95)
    assert torch.allclose(estimates.advantages, advantages, rtol=1e-9)
    assert estimates.value_targets is not None
    assert torch.allclose(estimates.value_targets.squeeze(-1), returns, rtol=1e-9)


@pytest.mark.parametrize("variant", ["ppo", "dvpo", "dvpo-mc", "dvpo-quantile-wise"])
def test_truncated_responses_may_bootstrap(variant: str) -> None:
    """Invariant 10: V(s_end) where the response was cut, 0 elsewhere; and a clear error without it."""
    options: dict[str, Any] = {"whiten": "none", **({} if variant == "dvpo-mc" else {"lam_critic": 1.0})}
    algorithm, batch, old, plain = prepared(variant, bootstrap_truncated=True, **options)
    ended = build(variant, **options).estimate(batch, old, SingleProcess())
    assert algorithm.needs_end_values and batch.truncated.any() and not batch.truncated.all()
    changed = (plain.advantages != ended.advantages).any(dim=1)
    assert torch.equal(changed, batch.truncated)
    assert old.critic is not None and old.critic.end_values is not None and plain.value_targets is not None
    end = old.critic.end_values.mean(dim=(-1, -2))
    row = int(batch.truncated.nonzero()[0, 0])
    last = int(batch.action_mask[row].nonzero()[-1, 0])
    assert plain.value_targets[row, last].mean().item() == pytest.approx(
        (batch.scores[row] + end[row]).item(), rel=1e-9
    )
    with pytest.raises(ValueError, match="end_values"):
        algorithm.estimate(batch, replace(old, critic=replace(old.critic, end_values=None)), SingleProcess())


def test_critic_diagnostics() -> None:
    """Coverage of a calibrated critic, explained variance of a perfect one, disagreement of equal heads."""
    algorithm, batch = build("dvpo"), make_batch(0, rows=8)
    returns = discounted_returns(batch.rewards, batch.action_mask, 1.0)
    critic = make_critic(algorithm, batch, 1)
    spread = (midpoint_taus(40, dtype=F64) - 0.5).expand(*returns.shape, 2, 40)
    exact = replace(critic, quantile_values=returns[..., None, None] + spread)
    values = to_floats(algorithm.estimate(batch, OldOutputs(batch.rewards, None, exact), SingleProcess()).metrics)
    assert values["critic/explained_variance"] == pytest.approx(1.0)
    assert values["critic/bias"] == pytest.approx(0.0, abs=1e-12)
    assert values["critic/head_disagreement"] == pytest.approx(0.0, abs=1e-12)
    assert values["critic/iqr"] == pytest.approx(0.5)
    assert [values[f"critic/coverage_q{p}"] for p in ("05", "25", "75", "95")] == [0.0, 0.0, 1.0, 1.0]
    assert values["critic/return_mean"] == pytest.approx(returns[batch.action_mask].mean().item())
    samples = torch.linspace(0, 1, 8, dtype=F64)
    batch = replace(batch, scores=samples, rewards=torch.where(batch.rewards != 0, samples[:, None], 0.0))
    calibrated = replace(critic, quantile_values=0.5 + spread)
    values = to_floats(algorithm.estimate(batch, OldOutputs(batch.rewards, None, calibrated), SingleProcess()).metrics)
    share = (discounted_returns(batch.rewards, batch.action_mask, 1.0)[batch.action_mask] < 0.25).double().mean()
    assert values["critic/coverage_q25"] == pytest.approx(share.item())


def test_the_running_scale_is_saved() -> None:
    algorithm, batch, old, _ = prepared("dvpo")
    assert isinstance(algorithm, DVPO)
    mask = batch.action_mask
    std = discounted_returns(batch.rewards, mask, 1.0)[mask].std(correction=0).item()
    assert algorithm.scale.value == pytest.approx(std, rel=1e-9)
    double = replace(batch, rewards=2 * batch.rewards)
    algorithm.estimate(double, old, SingleProcess())
    assert algorithm.scale.value == pytest.approx((0.99 * std + 2 * std) / 1.99, rel=1e-9)
    constant = replace(batch, rewards=torch.zeros_like(batch.rewards))
    algorithm.estimate(constant, old, SingleProcess())
    assert algorithm.scale.value == pytest.approx((0.99 * std + 2 * std) / 1.99, rel=1e-9)
    fresh = build("dvpo")
    assert isinstance(fresh, DVPO) and fresh.scale.value == 1.0
    fresh.load_state_dict(json.loads(json.dumps(algorithm.state_dict())))
    assert fresh.scale.value == algorithm.scale.value

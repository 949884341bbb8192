"""What changes nothing is said where it is chosen: one batch through the pipeline, with a correction and without it.

The judge knows nothing of what the pieces claim. It takes the gradient of the whole policy loss, which AdamW sees up to
a positive factor, and what the critic regresses to, which may move by an affine map without the policy seeing it: for
that, the critic before the update is one that has learned the rewards at hand.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.invariance import ALIKE, MIXED, Answer, ScoreMap, gone
from learner.algorithms.presets import PRESETS
from learner.algorithms.records import CorrectedRewards, Estimates, OldOutputs
from learner.algorithms.without_critic.dr_grpo import DrGRPO
from learner.algorithms.without_critic.grpo import GRPO
from learner.batch import TrainBatch
from learner.maths.collective import Collective, SingleProcess
from learner.maths.returns import discounted_returns
from rollout.component import UserError
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs

SAME, OTHER = 5e-6, 2e-5
"""Relative change of a gradient: below the one nothing but the epsilon of a division, above the other an effect."""
RATES = {"false_positive_rate": 0.3, "false_negative_rate": 0.2}
SPECS: dict[str, dict[str, Any]] = {
    "normalise": {"type": "normalise", "clip": 2.0},
    "normalise without a clip": {"type": "normalise", "clip": None},
    "percentile_clip": {"type": "percentile_clip"},
    "percentile_clip of nothing": {"type": "percentile_clip", "low": 0.0, "high": 1.0},
    "mad_clip": {"type": "mad_clip"},
    "noise_corrected": {"type": "noise_corrected", **RATES},
    "noise_corrected estimated": {"type": "noise_corrected", **RATES, "estimated": True},
    "noise_corrected by a factor": {"type": "noise_corrected", "false_positive_rate": 0.0, "false_negative_rate": 0.5},
    "noise_corrected of no noise": {"type": "noise_corrected", "false_positive_rate": 0.0, "false_negative_rate": 0.0},
    "forward_corrected": {"type": "forward_corrected", "false_negative_rate": 0.2},
    "winsorise": {"type": "winsorise", "warmup_updates": 0, "coverage_tolerance": 1.0},
    "evidence": {"type": "evidence", "low": -20.0, "high": 20.0},
    "label_smoothing": {"type": "label_smoothing", "epsilon": 0.3},
    "soft_overlong": {"type": "soft_overlong", "max_tokens": 11, "buffer_tokens": 6},
    "overlong_filter": {"type": "overlong_filter"},
    "precision": {"type": "precision"},
    "precision for the critic": {"type": "precision", "apply_to": "critic"},
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in PRESETS},
    "ppo without whitening": ("ppo", {"whiten": "none"}),
    "ppo with a bound of advantages": ("ppo", {"whiten": "none", "adv_clip": 0.5}),
    "ppo by scale": ("ppo", {"whiten": "scale"}),
    "ppo by mad": ("ppo", {"whiten": "mad"}),
    "ppo discounted": ("ppo", {"gamma": 0.9}),
    "ppo with values of cut responses": ("ppo", {"bootstrap_truncated": True}),
    "ppo with a KL loss": ("ppo", {"kl_coef": 0.1}),
    "ppo with entropy": ("ppo", {"entropy_coef": 0.1, "whiten": "none"}),
    "decoupled-vpo discounted": ("decoupled-vpo", {"gamma": 0.9}),
    "decoupled-vpo without whitening": ("decoupled-vpo", {"whiten": "none"}),
    "dr-grpo with a KL loss": ("dr-grpo", {"kl_coef": 0.1}),
    "dr-grpo with entropy": ("dr-grpo", {"entropy_coef": 0.1}),
    "dr-grpo with entropy later": ("dr-grpo", {"entropy_coef_late": 0.1, "entropy_switch_frac": 0.0}),
    "dr-grpo bapo": ("dr-grpo", {"policy_objective": "bapo"}),
    "dr-grpo apa": ("dr-grpo", {"policy_objective": "apa"}),
    "grpo apa": ("grpo", {"policy_objective": "apa"}),
    "grpo with a KL cost": ("grpo", {"kl_coef": 0.1, "kl_mode": "reward"}),
    "rloo with a KL cost": ("rloo", {"kl_coef": 0.1, "kl_mode": "reward"}),
    "reinforce": ("reinforce", {}),
    "reinforce whitened": ("reinforce", {"whiten": "std"}),
    "reinforce by scale": ("reinforce", {"whiten": "scale"}),
    "reinforce-pp without a KL cost": ("reinforce-pp", {"kl_coef": 0.0}),
    "reinforce-pp discounted": ("reinforce-pp", {"kl_coef": 0.0, "gamma": 0.8}),
    "reinforce-pp-baseline discounted": ("reinforce-pp-baseline", {"gamma": 0.8}),
}


def heavy_tailed_batch() -> TrainBatch:
    """64 trajectories of 8 prompts whose scores are normal, one in twelve with a large error; 8 true scores known."""
    rng = random.Random(0)
    scores = [rng.gauss(0.0, 1.0) + (i % 12 == 5) * rng.choice((-15.0, 15.0)) for i in range(64)]
    batch = make_batch(0, rows=64, group=8)
    batch = replace(batch, gold_labels=torch.where(torch.arange(64) < 8, 20.0, batch.gold_labels))
    return CorrectedRewards(batch).with_scores(torch.tensor(scores, dtype=torch.float64), {}).batch


BATCH = heavy_tailed_batch()


def old_outputs(algorithm: Algorithm) -> OldOutputs:
    """Random outputs, those of a frozen LM head among them."""
    rng = torch.Generator().manual_seed(2)
    old = make_old(algorithm, BATCH, 1)
    if old.ref_logprobs is not None:
        entropy = torch.rand(BATCH.rewards.shape, generator=rng)
        old = replace(old, ref_entropy=entropy, ref_end_states=torch.rand(len(BATCH), 5, generator=rng))
    if old.critic is None:
        return old
    columns = {name: torch.rand(BATCH.rewards.shape, generator=rng) for name in ("semantic_nll", "semantic_entropy")}
    return replace(old, critic=replace(old.critic, **columns))


def that_has_learned(old: OldOutputs, algorithm: Algorithm, factor: float, offset: float) -> OldOutputs:
    """The old outputs, with a critic that says ``factor * r + offset`` wherever it said r."""
    if old.critic is None:
        return old
    last = torch.where(BATCH.action_mask, torch.arange(BATCH.action_mask.shape[1]), 0).amax(dim=1)
    at_last = torch.zeros_like(BATCH.rewards)
    at_last[torch.arange(len(BATCH)), last] = offset
    shift = discounted_returns(at_last, BATCH.action_mask, algorithm.config.gamma)
    values = torch.where(
        BATCH.action_mask[..., None, None], factor * old.critic.quantile_values + shift[..., None, None], 0.0
    )
    end = old.critic.end_values
    end = None if end is None else factor * end + offset
    return replace(old, critic=replace(old.critic, quantile_values=values, end_values=end))


def gradient(algorithm: Algorithm, old: OldOutputs, estimates: Estimates) -> Tensor:
    """Of the policy loss with respect to log-probabilities and entropies, of length 1."""
    logprobs = old.logprobs.clone().requires_grad_()
    entropy = torch.ones_like(logprobs, requires_grad=True)
    inputs = policy_inputs(algorithm, BATCH, old, logprobs, entropy if algorithm.needs_entropy else None)
    loss = algorithm.policy_loss(inputs, estimates, counts(BATCH)).loss
    found = torch.autograd.grad(loss, [logprobs, entropy], allow_unused=True)
    whole: Tensor = torch.cat([part.ravel() for part in found if part is not None])
    unit: Tensor = whole / whole.norm()
    return unit


def is_seen(name: str, options: Mapping[str, Any], without: Sequence[Any], and_with: Sequence[Any]) -> bool:
    """Whether an update with one list of corrections differs from that with the other."""

    def built(corrections: Sequence[Any]) -> Algorithm:
        algorithm = build_algorithm(name, {**options, "reward_correction": list(corrections)})
        algorithm.begin_update(1, 2)
        return algorithm

    algorithms = [built(without), built(and_with)]
    olds = [old_outputs(algorithm) for algorithm in algorithms]
    # Corrections keep statistics, so the scores come from other instances of them.
    before, after = (
        built(corrections).correct_rewards(BATCH, old, SingleProcess()).batch.scores
        for corrections, old in zip((without, and_with), olds, strict=True)
    )
    columns = torch.stack([before, torch.ones_like(before)], dim=1)
    factor, offset = torch.linalg.lstsq(columns, after[:, None]).solution.squeeze(1).tolist()
    if not any(getattr(correction, "compares_with_critic", False) for correction in algorithms[1].corrections):
        olds[1] = that_has_learned(olds[1], algorithms[1], factor, offset)
    found = [a.estimate(BATCH, old, SingleProcess()) for a, old in zip(algorithms, olds, strict=True)]
    gradients = [gradient(a, old, e) for a, old, e in zip(algorithms, olds, found, strict=True)]
    change = float((gradients[0] - gradients[1]).norm())
    targets = [estimates.value_targets for estimates in found]
    if targets[0] is not None and targets[1] is not None:
        last = torch.where(BATCH.action_mask, torch.arange(BATCH.action_mask.shape[1]), 0).amax(dim=1)
        both = torch.stack([target[torch.arange(len(BATCH)), last].ravel() for target in targets if target is not None])
        change = max(change, (max(0.0, 1.0 - float(torch.corrcoef(both)[0, 1] ** 2))) ** 0.5)
        weights = [torch.ones(len(BATCH)) if e.weights.critic is None else e.weights.critic for e in found]
        change = max(change, float((weights[0] - weights[1]).abs().max()))
    assert not SAME < change < OTHER, f"{change:g} is neither nothing nor something"
    return change >= OTHER


def told(name: str, options: Mapping[str, Any], corrections: Sequence[Any], index: int) -> bool:
    """Whether there is a remark on the correction at this place of the list."""
    remarks = build_algorithm(name, {**options, "reward_correction": list(corrections)}).remarks()
    return any(remark.startswith(f"algorithm.reward_correction.{index}: ") for remark in remarks)


def with_visible_kl(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with a KL penalty that is large enough to be seen where there is one."""
    is_there = build_algorithm(name, options).config.kl_coef > 0.0
    return {**options, **({"kl_coef": 0.1} if is_there else {})}


QUICK = ("ppo", "grpo", "reinforce", "nc-dr-grpo", "rloo")
"""Settings that the fast part of the suite looks at."""


@pytest.mark.parametrize(
    "setting", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SETTINGS]
)
def test_a_remark_is_made_if_and_only_if_the_update_is_the_same(setting: str) -> None:
    name, options = SETTINGS[setting]
    options = with_visible_kl(name, options)
    checked = 0
    for label, spec in SPECS.items():
        try:
            remarked = told(name, options, [spec], 0)
        except UserError as error:
            assert "needs a critic" in str(error) or "would change it first" in str(error), label
            continue
        assert is_seen(name, options, [], [spec]) is not remarked, f"{label} under {setting}"
        checked += 1
    assert checked >= 7 or name in ("nc-grpo", "s-grpo", "real")


def test_every_correction_is_looked_at() -> None:
    """But for those that act before estimation, by leaving trajectories out, and one that waits for visits."""
    others = {"group_filter", "gold_only", "relabel"}
    assert {spec["type"] for spec in SPECS.values()} == set(CORRECTIONS) - others


@pytest.mark.parametrize("name", [name for name in PRESETS if "reward_correction" in PRESETS[name].options])
def test_the_corrections_of_presets(name: str) -> None:
    """The presets of papers that are another preset, or are not."""
    own = PRESETS[name].options["reward_correction"]
    expected = {"backward-ppo": True, "nc-dr-grpo": True, "forward-corrected": False, "ppo-max": False}
    assert told(name, {}, own, 0) is expected.get(name, False)
    if name not in ("dvpo-winsorised", "dapo"):  # the one's correction waits for five updates, the other's selects
        assert is_seen(name, with_visible_kl(name, {}), [], own) is not expected[name]


NOISE, FORWARD, CLIP = SPECS["noise_corrected"], SPECS["forward_corrected"], {"type": "percentile_clip"}
LISTS: list[tuple[str, list[dict[str, Any]], list[bool]]] = [
    ("ppo", [NOISE, {"type": "mad_clip"}], [True, False]),
    ("grpo", [NOISE, CLIP], [True, False]),
    ("reinforce", [NOISE, SPECS["normalise"]], [True, False]),
    ("reinforce", [FORWARD, CLIP], [False, False]),
    ("reinforce", [NOISE, CLIP], [False, False]),
    ("rloo", [FORWARD, SPECS["normalise without a clip"]], [True, True]),
    ("dvpo", [NOISE, SPECS["precision"]], [True, False]),
    ("dvpo", [SPECS["normalise without a clip"], SPECS["winsorise"]], [False, False]),
]


@pytest.mark.parametrize(("name", "corrections", "expected"), LISTS, ids=str)
def test_corrections_behind_others(name: str, corrections: list[dict[str, Any]], expected: list[bool]) -> None:
    for index, is_idle in enumerate(expected):
        without = [spec for i, spec in enumerate(corrections) if i != index]
        assert told(name, {}, corrections, index) is is_idle
        assert is_seen(name, {}, without, corrections) is not is_idle


# --- what is told ---------------------------------------------------------------------------------------------------


def test_the_sentence_says_what_and_why() -> None:
    (remark, *_) = build_algorithm("backward-ppo").remarks()
    assert remark == (
        "algorithm.reward_correction.0: noise_corrected changes nothing here: it makes a * r + b of every reward r, "
        "and the critic, once it has learned such rewards, takes b out and whitening takes a out again; leave it out"
    )
    (remark, *_) = build_algorithm("nc-dr-grpo").remarks()
    assert "the group's mean takes b out and AdamW, which divides by the gradient's size, takes a out again" in remark
    (remark, *_) = build_algorithm("grpo", {"reward_correction": [FORWARD]}).remarks()
    assert "it makes r + b of every reward r, and the group's mean takes b out again" in remark
    (remark, *_) = build_algorithm("reinforce", {"reward_correction": [SPECS["noise_corrected of no noise"]]}).remarks()
    assert "changes nothing here: r stays r; leave it out" in remark


class Squashed(DrGRPO):
    """A formula of one's own, over what Dr.GRPO says of its own."""

    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Bounded."""
        return super().group_advantages(scores, group_ids).tanh()


class OwnEstimate(GRPO):
    """Another estimation, over what GRPO says of its own."""

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Advantages that are bounded from below."""
        found = super().estimate(batch, old, world)
        return replace(found, advantages=found.advantages.clamp(min=-0.1))


class OwnLoss(DrGRPO):
    """Another surrogate, for which the size of advantages may be something."""

    def clipped_loss(self, inputs: Any, estimates: Estimates) -> Any:
        """The usual one."""
        return super().clipped_loss(inputs, estimates)


@pytest.mark.parametrize("kind", ["Squashed", "OwnEstimate", "OwnLoss"])
def test_nothing_is_claimed_of_a_formula_that_took_the_place_of_ours(kind: str) -> None:
    assert not told(f"{__name__}:{kind}", {}, [NOISE], 0)


def test_answers_are_taken_out_once_and_only_where_they_are_alike() -> None:
    shift, scale, both = ScoreMap(shifts=True), ScoreMap(scales=True), ScoreMap(shifts=True, scales=True)
    assert [str(found) for found in (ScoreMap(), shift, scale, both)] == ["r", "r + b", "a * r", "a * r + b"]
    mixed = Answer(shift=MIXED, scale=ALIKE).take_out("x", shift=True, scale=True)
    assert [mixed.reasons(found) for found in (ScoreMap(), shift, scale)] == [[], None, ["x takes a out"]]
    first = Answer(shift=gone("y"), scale=ALIKE).take_out("x", shift=True, scale=True)
    assert first.reasons(both) == ["y takes b out", "x takes a out"]
    assert Answer().reasons(both) is None


# --- one optimiser step a batch -------------------------------------------------------------------------------------


def bounds_told(name: str, options: Mapping[str, Any] | None = None) -> str:
    """The remark on bounds that do not act, or an empty string."""
    found = [r for r in build_algorithm(name, options or {}).remarks() if r.startswith("algorithm.num_minibatches: ")]
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("grpo", "clip_ratio_low and clip_ratio_high do not act"),
        ("ppo", "clip_ratio_low, clip_ratio_high, dual_clip and the critic's clip do not act"),
        ("vapo", "clip_ratio_low, clip_ratio_high, dual_clip and the critic's clip do not act"),
        ("dvpo", "clip_ratio_low, clip_ratio_high and dual_clip do not act"),
        ("vrpo", "clip_ratio_low, clip_ratio_high and dual_clip do not act"),
    ],
)
def test_bounds_of_a_single_step_are_said_not_to_act(name: str, named: str) -> None:
    assert named in bounds_told(name)
    for more in ({"num_epochs": 2}, {"num_minibatches": 2}):
        assert bounds_told(name, more) == ""


@pytest.mark.parametrize("name", ["bapo", "apa"])
def test_an_objective_without_such_bounds_needs_no_remark(name: str) -> None:
    assert "clip_ratio" not in bounds_told(name)


@pytest.mark.parametrize(
    "bound", [{"clip_ratio_low": 0.01}, {"clip_ratio_high": 0.28}, {"dual_clip": 1.5}, {"value_clip": 0.01}]
)
def test_the_bounds_act_from_the_second_step_on_only(bound: dict[str, Any]) -> None:
    """At the old policy and the old critic every bound leaves the gradients as they are; away from them it does not."""
    plain, bounded = (build_algorithm("ppo", {"dual_clip": None, "value_clip": None, **more}) for more in ({}, bound))
    old = make_old(plain, BATCH, 1)
    rng = torch.Generator().manual_seed(0)
    moved = torch.where(BATCH.action_mask, torch.randn(BATCH.rewards.shape, generator=rng, dtype=torch.float64), 0.0)
    for distance, is_same in ((0.0, True), (0.5, False)):
        found = []
        for algorithm in (plain, bounded):
            assert old.critic is not None
            estimates = algorithm.estimate(BATCH, old, SingleProcess())
            logprobs = (old.logprobs + distance * moved).requires_grad_()
            values = (old.critic.quantile_values + distance * moved[..., None, None]).requires_grad_()
            loss = algorithm.policy_loss(policy_inputs(algorithm, BATCH, old, logprobs), estimates, counts(BATCH)).loss
            critic = algorithm.critic_loss(replace(old.critic, quantile_values=values), BATCH, estimates, counts(BATCH))
            found.append(torch.cat([g.ravel() for g in torch.autograd.grad(loss + critic.loss, [logprobs, values])]))
        assert torch.allclose(found[0], found[1], rtol=1e-9, atol=1e-12) is is_same

"""Every setting that the audit may advise changes the update: one batch through the pipeline, with it and without.

An optimiser such as Adam divides the scale of advantages out, and a critic's targets may move by an affine map without
any change of what the policy learns. So advantages are compared up to a positive factor and targets up to an affine
map, and a control shows that corrections by error rates, which are affine, pass for no change.
"""

from __future__ import annotations

import ast
import asyncio
import random
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.config.run_config import RunConfig
from learner.algorithms.catalogue import ALGORITHMS, build_algorithm
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.corrections.verifier import backward_corrected, forward_weights
from learner.algorithms.presets import PRESETS
from learner.algorithms.records import Estimates, OldOutputs
from learner.batch import TrainBatch
from learner.maths.collective import SingleProcess
from learner.metrics import Last
from rollout.audit import advice
from rollout.audit.advice import REMEDIES
from rollout.audit.report import outlier_share
from rollout.config import RewardConfig
from rollout.rewards.base import Reward
from rollout.scoring.service import RewardService
from rollout.trajectory import FinishReason, Prompt, SampleRequest, Trajectory
from tests.learner.random_batches import make_batch, make_old

WITHOUT_CRITIC = ("grpo", "dr-grpo", "rloo", "reinforce-pp")
WITH_CRITIC = ("ppo", "dvpo", "robust-bellman")
GROUP = 8


def batch_of(scores: Sequence[float] | Tensor, seed: int = 0) -> TrainBatch:
    """A random batch whose trajectories have these scores, the first eight of one prompt and so on."""
    values = torch.as_tensor(scores, dtype=torch.float64)
    batch = make_batch(seed, rows=len(values), group=GROUP)
    rewards = torch.zeros_like(batch.rewards)
    rewards[torch.arange(len(values)), last_tokens(batch)] = values
    return replace(batch, scores=values, rewards=rewards)


def last_tokens(batch: TrainBatch) -> Tensor:
    return torch.where(batch.action_mask, torch.arange(batch.action_mask.shape[1]), 0).amax(dim=1)


def estimate(name: str, batch: TrainBatch, options: dict[str, Any] | None = None, **critic: float) -> Estimates:
    """One estimation; ``factor`` and ``offset`` map the values of the old critic."""
    algorithm = build_algorithm(name, options or {})
    return algorithm.estimate(batch, old_outputs(algorithm, batch, **critic), SingleProcess())


def old_outputs(algorithm: Any, batch: TrainBatch, factor: float = 1.0, offset: float = 0.0) -> OldOutputs:
    old = make_old(algorithm, batch, seed=1)
    if old.critic is None:
        return old
    values = torch.where(batch.action_mask[..., None, None], factor * old.critic.quantile_values + offset, 0.0)
    return replace(old, critic=replace(old.critic, quantile_values=values))


def advantage_change(before: Estimates, after: Estimates) -> float:
    """1 minus the cosine of the two batches' advantages: 0 if one is a positive multiple of the other."""
    one, other = before.advantages.ravel(), after.advantages.ravel()
    return 1.0 - float(torch.dot(one, other) / (one.norm() * other.norm()))


def target_change(before: Estimates, after: Estimates, mask: Tensor) -> float:
    """Share of the variance of the critic's targets that no affine map of the former ones gives."""
    assert before.value_targets is not None and after.value_targets is not None
    one, other = before.value_targets[mask].ravel(), after.value_targets[mask].ravel()
    return 1.0 - float(torch.corrcoef(torch.stack([one, other]))[0, 1] ** 2)


def heavy_tailed(seed: int, rows: int = 64) -> Tensor:
    """Normal scores, one in twelve of them with a large error."""
    rng = random.Random(seed)
    return torch.tensor([rng.gauss(0.0, 1.0) + (i % 12 == 5) * rng.choice((-15.0, 15.0)) for i in range(rows)])


def flips(truth: Sequence[float], rate: float, rng: random.Random) -> list[float]:
    return [1.0 - value if rng.random() < rate else value for value in truth]


# --- one proof for each remedy ------------------------------------------------------------------------------------


def prove_clip_outliers() -> None:
    """The line of YAML as it stands, under methods with and without a critic; the audit counts what it clips."""
    assert REMEDIES["clip outliers"] == "algorithm.reward_correction: [mad_clip]"
    batch = batch_of(heavy_tailed(0))
    clipped = build_algorithm("grpo", {"reward_correction": ["mad_clip"]})
    moved = clipped.correct_rewards(batch, OldOutputs(batch.rollout_logprobs), SingleProcess()).batch.scores
    assert outlier_share(batch.scores.tolist()) == pytest.approx(float((moved != batch.scores).double().mean()))
    assert outlier_share(batch.scores.tolist()) >= 1 / 16
    for name in WITHOUT_CRITIC + WITH_CRITIC:
        before, after = estimate(name, batch), estimate(name, batch, {"reward_correction": ["mad_clip"]})
        assert advantage_change(before, after) > 0.01, name
        if name in WITH_CRITIC:
            assert target_change(before, after, batch.action_mask) > 0.01, name


def prove_clip_by_critic() -> None:
    """As soon as the critic is calibrated, which takes some updates in which scores are what it expects."""
    assert REMEDIES["clip by critic"] == "algorithm: dvpo-winsorised"
    algorithms = {name: build_algorithm(name) for name in ("dvpo", "dvpo-winsorised")}
    found: dict[str, Estimates] = {}
    for name, algorithm in algorithms.items():
        for update in range(8):
            batch = batch_of([0.0] * 64)
            old = old_outputs(algorithm, batch)
            assert old.critic is not None
            expected = old.critic.quantile_values[torch.arange(64), last_tokens(batch)].mean(dim=1)
            rng = torch.Generator().manual_seed(update)
            level = torch.randint(expected.shape[1], (64, 1), generator=rng)
            scores = expected.gather(1, level).squeeze(1)
            if update == 7:
                scores = scores + torch.where(torch.arange(64) % 12 == 5, 15.0, 0.0)
            found[name] = algorithm.estimate(batch_of(scores), old, SingleProcess())
    assert found["dvpo-winsorised"].metrics["correction/winsorise_active"] == Last(1.0)
    assert advantage_change(found["dvpo"], found["dvpo-winsorised"]) > 0.01
    assert target_change(found["dvpo"], found["dvpo-winsorised"], batch.action_mask) > 0.01


def prove_prompt_baseline() -> None:
    """What a score says of the prompt alone moves the advantages of reinforce-pp and of none of the others."""
    rng = random.Random(0)
    plain = torch.tensor([rng.gauss(0.0, 1.0) for _ in range(64)], dtype=torch.float64)
    ease = torch.tensor([rng.gauss(0.0, 3.0) for _ in range(8)], dtype=torch.float64).repeat_interleave(GROUP)
    named = [name for name in re.findall(r"[a-z-]+", REMEDIES["prompt baseline"]) if name in PRESETS]
    assert named == ["grpo", "rloo", "reinforce-pp-baseline", "reinforce-pp"]
    eased = estimate("reinforce-pp", batch_of(plain + ease))
    assert advantage_change(estimate("reinforce-pp", batch_of(plain)), eased) > 0.1
    for name in named[:3]:
        assert advantage_change(estimate(name, batch_of(plain)), estimate(name, batch_of(plain + ease))) < 1e-9, name
        assert advantage_change(eased, estimate(name, batch_of(plain + ease))) > 0.1, name


class Judge(Reward):
    """Misjudges three responses in ten, drawn anew at each call; right ones have the reference 1."""

    rng = random.Random(0)

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """See :class:`Reward`."""
        return flips([float(prompt.reference or 0)], 0.3, self.rng)[0]


def judged(truth: Sequence[float], number: int) -> list[float]:
    """The scores of a reward that lists the judge ``number`` times, through the reward service."""
    function = {"type": f"{__name__}:Judge", "weight": 1 / number}
    service = RewardService(RewardConfig.model_validate({"functions": [function] * number}), run_seed=0)

    async def score() -> list[float]:
        scores = []
        for index, value in enumerate(truth):
            prompt = Prompt(prompt_id=f"p{index}", messages=(), token_ids=(1,), reference=f"{value:g}", task="t")
            done = replace(Trajectory.failed(SampleRequest(prompt, 0), ""), failure="", finish_reason=FinishReason.STOP)
            record = await service.score(prompt, done)
            assert record.observed is not None, record.error
            scores.append(record.observed)
        await service.close()
        return scores

    return asyncio.run(score())


def prove_average() -> None:
    """A third of the error's variance, and other advantages."""
    assert REMEDIES["average"] == "list it three times in reward.functions, each with a third of its weight"
    rng = random.Random(1)
    truth = [float(rng.random() < 0.5) for _ in range(800)]
    once, mean = judged(truth, 1), judged(truth, 3)
    expected = [0.3 + 0.4 * value for value in truth]  # of a single call
    errors = [
        statistics.fmean((score - middle) ** 2 for score, middle in zip(scores, expected, strict=True))
        for scores in (once, mean)
    ]
    assert errors[0] / errors[1] == pytest.approx(3.0, rel=0.1)
    for name in WITHOUT_CRITIC + WITH_CRITIC:
        before, after = (estimate(name, batch_of(scores[:64])) for scores in (once, mean))
        assert advantage_change(before, after) > 0.01, name
        if name in WITH_CRITIC:
            mask = batch_of(once[:64]).action_mask
            assert target_change(before, after, mask) > 0.01, name


def signal_to_noise(rate: float, num_prompts: int, repeats: int = 150) -> float:
    """Of the batch's gradient along a weak feature of right responses: its mean over its standard deviation."""
    rng, gradients = random.Random(2), []
    for _ in range(repeats):
        truth = [float(rng.random() < 0.5) for _ in range(GROUP * num_prompts)]
        batch = batch_of(flips(truth, rate, rng))
        advantages = estimate("reinforce-pp", batch, {"kl_coef": 0.0}).advantages
        feature = torch.tensor([0.3 * value + rng.gauss(0.0, 1.0) for value in truth], dtype=torch.float64)
        per_row = advantages[torch.arange(len(batch)), last_tokens(batch)]
        gradients.append(float((per_row * (feature - 0.15)).mean()))
    return statistics.fmean(gradients) / statistics.stdev(gradients)


def prove_more_responses() -> None:
    """J = .5 costs half of a gradient's distance from chance, and four times as many prompts bring it back."""
    assert REMEDIES["more responses"] == "raise training.prompts_per_step"
    clean = signal_to_noise(0.0, 8)
    assert signal_to_noise(0.25, 8) / clean == pytest.approx(0.5, rel=0.25)
    assert signal_to_noise(0.25, 32) / clean == pytest.approx(1.0, rel=0.25)


PROOFS: dict[str, Callable[[], None]] = {
    "more responses": prove_more_responses,
    "average": prove_average,
    "clip outliers": prove_clip_outliers,
    "clip by critic": prove_clip_by_critic,
    "prompt baseline": prove_prompt_baseline,
}


@pytest.mark.slow
@pytest.mark.parametrize("remedy", REMEDIES)
def test_a_remedy_changes_the_update(remedy: str) -> None:
    PROOFS[remedy]()


# --- what is not advised, and that nothing else is ----------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT_CRITIC + WITH_CRITIC)
def test_corrections_by_error_rates_pass_for_no_change(name: str) -> None:
    """The control: an affine map of 0/1 rewards, with a critic that has learned the corrected ones, moves nothing."""
    rng = random.Random(3)
    batch = batch_of([float(rng.random() < 0.5) for _ in range(64)])
    options: dict[str, Any] = {"kl_coef": 0.0} if name == "reinforce-pp" else {}
    before = estimate(name, batch, options)
    for corrected, factor, offset in (
        (backward_corrected(batch.scores, 0.3, 0.1), 1 / 0.6, -0.3 / 0.6),
        (forward_weights(batch.scores, 0.1), 1.0, -0.9),
    ):
        after = estimate(name, batch_of(corrected), options, factor=factor, offset=offset)
        assert advantage_change(before, after) < 1e-9
        if name in WITH_CRITIC:
            assert target_change(before, after, batch.action_mask) < 1e-9


def told_strings() -> list[str]:
    """The strings of the advice's source, docstrings and :data:`REMEDIES` left out."""
    assert advice.__file__ is not None
    tree = ast.parse(Path(advice.__file__).read_text(encoding="utf-8"))
    kept = [
        node for node in tree.body if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REMEDIES")
    ]
    documented = {id(node.value) for one in kept for node in ast.walk(one) if isinstance(node, ast.Expr)}
    return [
        node.value
        for one in kept
        for node in ast.walk(one)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
    ]


def test_every_method_that_the_advice_names_is_a_remedy() -> None:
    methods = {*PRESETS, *ALGORITHMS, *CORRECTIONS}
    named = {word for text in told_strings() for word in re.findall(r"[a-z][a-z0-9_-]*", text)}
    assert named & methods == set()
    remedies = {word for text in REMEDIES.values() for word in re.findall(r"[a-z][a-z0-9_-]*", text)}
    assert remedies & methods == {
        "mad_clip",
        "dvpo-winsorised",
        "grpo",
        "rloo",
        "reinforce-pp",
        "reinforce-pp-baseline",
    }


def test_every_setting_that_the_advice_names_exists() -> None:
    fields = RunConfig.model_fields
    texts = [*told_strings(), *REMEDIES.values()]
    named = {found for text in texts for found in re.findall(r"\b([a-z]+)\.([a-z_]+)\b", text) if found[0] in fields}
    assert {("training", "prompts_per_step"), ("reward", "functions"), ("reward", "gold")} <= named
    for section, key in named - {("algorithm", "reward_correction")}:
        model = fields[section].annotation
        assert model is not None and key in model.model_fields, f"{section}.{key}"


def test_corrections_are_what_the_control_uses() -> None:
    """The names that the advice used to give stand for these two maps."""
    rates = {"false_positive_rate": 0.3, "false_negative_rate": 0.1}
    for spec, mapped in (
        ({"type": "noise_corrected", **rates}, lambda r: backward_corrected(r, 0.3, 0.1)),
        ({"type": "forward_corrected", "false_negative_rate": 0.1}, lambda r: forward_weights(r, 0.1)),
    ):
        algorithm = build_algorithm("reinforce", {"reward_correction": [spec]})
        assert isinstance(algorithm.corrections[0], RewardCorrection)
        batch = batch_of([0.0, 1.0] * 8)
        corrected = algorithm.correct_rewards(batch, OldOutputs(batch.rollout_logprobs), SingleProcess())
        assert torch.allclose(corrected.batch.scores, mapped(batch.scores))

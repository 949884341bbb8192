"""The update on plain torch: against a batch written out in one piece, and invariant to how it is split."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from learner.algorithms.base import Algorithm, AlgorithmConfig
from learner.algorithms.records import Denominators, Estimates, LossOutput, OldOutputs, PolicyInputs
from learner.batch import TrainBatch, collate
from learner.config import LearnerConfig
from learner.maths.collective import Collective
from learner.metrics import Mean, to_floats
from learner.models.spec import CriticConfig, CriticOutput
from learner.update.learner import Learner
from learner.update.schedule import learning_rate
from rollout.trajectory import ScoredTrajectory
from tests.learner.plain_learner import random_samples

MakeLearner = Callable[..., Learner]
Forward = Callable[..., dict[str, torch.Tensor]]
LR = {"policy_lr": 1e-3, "critic_lr": 2e-3, "lr_warmup_frac": 0.0}


class Plain(Algorithm):
    """REINFORCE with the score as advantage, and a critic by squared error: simple enough to write out by hand."""

    needs_critic = True

    class Config(AlgorithmConfig):
        critic: CriticConfig = CriticConfig(num_heads=2, num_quantiles=3)
        reads_old: bool = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.old: list[OldOutputs] = []
        self.inputs: list[PolicyInputs] = []

    @property
    def needs_old_logprobs(self) -> bool:
        return bool(self.config.reads_old)

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        self.old.append(old)
        advantages = torch.where(batch.action_mask, batch.scores[:, None], 0.0)
        return Estimates(advantages, advantages[..., None], None, {"rows/count": Mean(len(batch), 1.0)})

    def policy_loss(self, inputs: PolicyInputs, estimates: Estimates, counts: Denominators) -> LossOutput:
        self.inputs.append(inputs)
        ratio = torch.exp(inputs.logprobs - inputs.old_logprobs)
        loss = -(ratio * estimates.advantages)[inputs.action_mask].sum() / counts.num_action_tokens
        return LossOutput(loss, {})

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        assert estimates.value_targets is not None
        error = (output.quantile_values - estimates.value_targets[..., None]).square().mean(dim=(2, 3))
        loss = error[batch.action_mask].sum() / counts.num_action_tokens
        return LossOutput(loss, {})


def plain(**options: Any) -> Plain:
    return Plain(Plain.Config(**options))


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    engines = filter(None, (learner.policy, learner.critic))
    return {f"{i}.{name}": w for i, engine in enumerate(engines) for name, w in engine.full_weights()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=atol, msg=partial("{}: {}".format, name))


def test_one_update_is_one_adamw_step_on_the_written_out_loss(make_learner: MakeLearner) -> None:
    samples = random_samples(7)
    config = LearnerConfig(micro_batch_tokens=40, max_grad_norm=0.7, weight_decay=0.1, adam_eps=1e-4, **LR)
    learner, oracle = make_learner(plain(), config=config), make_learner(plain(), config=config)
    result = learner.update(samples, 0)

    assert oracle.critic is not None
    batch, policy, critic = collate(samples), oracle.policy.module, oracle.critic.module
    count = sum(s.trajectory.num_response_tokens for s in samples)
    logprobs = policy(batch.token_ids, batch.action_mask, 1.0)["logprobs"]
    # the ratio is 1, and its gradient that of the log-probability
    policy_loss = -(batch.scores[:, None] * (logprobs - logprobs.detach()).exp())[batch.action_mask].sum() / count
    values = critic(batch.token_ids, batch.action_mask)["quantile_values"][batch.action_mask]
    targets = batch.scores[:, None].expand(batch.action_mask.shape)[batch.action_mask]
    critic_loss = (values - targets[:, None, None]).square().mean(dim=(1, 2)).sum() / count
    expected: dict[str, float] = {}
    for name, engine, loss, lr in (
        ("policy", oracle.policy, policy_loss, 1e-3),
        ("critic", oracle.critic, critic_loss, 2e-3),
    ):
        loss.backward()
        expected |= {f"{name}/loss": loss.item(), f"{name}/grad_norm": engine.step(lr), f"{name}/lr": lr}
    metrics = to_floats(result.metrics)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert metrics["rows/count"] == 7
    assert metrics["learner/micro_batches"] > 2
    assert_same(weights(learner), weights(oracle), atol=2e-6)
    assert learner.state_dict() == {"policy_steps": 1, "critic_steps": 1}


OPTIONS = {
    "ppo": {"num_epochs": 2, "num_minibatches": 3, "kl_coef": 0.05, "entropy_coef": 0.01},
    "grpo": {"num_minibatches": 2, "kl_coef": 0.05},
    # without Eq 9, whose gradient is large and jumps where curvature changes sign: it magnifies rounding
    "dvpo": {"critic": {"num_heads": 2, "num_quantiles": 32}, "bootstrap_truncated": True, "curvature_coef": 0.0},
}


@pytest.mark.parametrize("algorithm", OPTIONS)
def test_the_split_into_micro_batches_changes_nothing(algorithm: str, make_learner: MakeLearner) -> None:
    curves, ends = [], []
    for tokens in (10_000, 60, 1):
        # a large Adam offset, or rounding in tiny gradients would be blown up to whole steps
        config = LearnerConfig(micro_batch_tokens=tokens, adam_eps=1e-3, **LR)
        learner = make_learner(algorithm, OPTIONS[algorithm], config)
        curves.append([to_floats(learner.update(random_samples(9, step), step).metrics) for step in range(2)])
        ends.append(weights(learner))
    for curve, end in zip(curves[1:], ends[1:], strict=True):
        for metrics, expected in zip(curve, curves[0], strict=True):
            for key, value in expected.items():
                if not key.startswith("learner/"):
                    assert metrics[key] == pytest.approx(value, rel=1e-3, abs=2e-5), key
        assert_same(end, ends[0], atol=2e-5)


def test_a_single_step_skips_the_old_log_probabilities(make_learner: MakeLearner) -> None:
    samples = random_samples(6)
    for options, forwards in (({}, 1), ({"reads_old": True}, 2), ({"num_epochs": 2}, 3), ({"num_minibatches": 2}, 2)):
        algorithm = plain(**options)
        learner = make_learner(algorithm, config=LearnerConfig(micro_batch_tokens=10_000, **LR))
        calls = 0

        def forward(inner: Forward = learner.policy.forward, /, **inputs: object) -> dict[str, torch.Tensor]:
            nonlocal calls
            calls += 1
            return inner(**inputs)

        learner.policy.forward = forward  # type: ignore[method-assign]
        learner.update(samples, 0)
        minibatches = options.get("num_minibatches", 1)
        assert calls == forwards * minibatches
        old = algorithm.old[0].logprobs
        if options:
            batch = collate(samples)
            oracle = make_learner(plain()).policy.module
            expected = oracle(batch.token_ids, batch.action_mask, 1.0)["logprobs"]
            assert old[old != 0].sum().item() == pytest.approx(expected.sum().item(), rel=1e-5)
        else:
            assert old.isnan().all()  # so that nobody reads them by mistake
        assert torch.equal(algorithm.inputs[0].old_logprobs, algorithm.inputs[0].logprobs.detach())


def test_temperature_applies_to_training_and_not_to_the_sync_check(make_learner: MakeLearner) -> None:
    samples = random_samples(3)
    found = {}
    for temperature in (1.0, 0.5):
        algorithm = plain()
        learner = make_learner(
            algorithm, config=LearnerConfig(micro_batch_tokens=10_000, **LR), temperature=temperature
        )
        ids = [list(s.trajectory.token_ids) for s in samples]
        before = learner.logprobs(ids)
        assert before == make_learner(plain()).logprobs(ids)
        assert [len(row) for row in before] == [len(row) for row in ids]
        learner.update(samples, 0)
        found[temperature] = algorithm.inputs[0].logprobs.detach()
        batch = collate(samples, _order(learner, samples))
        module = make_learner(plain()).policy.module
        expected = module(batch.token_ids, batch.action_mask, temperature)["logprobs"]
        torch.testing.assert_close(found[temperature], expected)
        if temperature == 1.0:
            row = torch.tensor(before[_order(learner, samples)[0]])
            mask = batch.action_mask[0, : len(row)]
            torch.testing.assert_close(row[mask], expected[0, : len(row)][mask].detach())
    assert not torch.allclose(found[1.0], found[0.5], atol=0.1)
    with pytest.raises(ValueError, match="temperature above 0"):
        make_learner(plain(), temperature=0.0)


def _order(learner: Learner, samples: list[ScoredTrajectory]) -> list[int]:
    """The order in which a single rank without mini-batches takes its rows: longest first."""
    return sorted(range(len(samples)), key=lambda i: (-len(samples[i].trajectory.token_ids), i))


def test_critic_warm_up_leaves_the_policy_alone(make_learner: MakeLearner) -> None:
    learner = make_learner(plain())
    before = weights(learner)
    result = learner.update(random_samples(5), 0, critic_only=True)
    after = weights(learner)
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == name.startswith("0."), name
    assert learner.state_dict() == {"policy_steps": 0, "critic_steps": 1}
    assert "policy/loss" not in result.metrics and "critic/loss" in result.metrics
    assert result.timings["policy"] == 0.0 < result.timings["critic"]
    with pytest.raises(ValueError, match="GRPO has no critic"):
        make_learner("grpo").update(random_samples(4), 0, critic_only=True)


def test_learning_rate_by_hand() -> None:
    rates = [learning_rate(step, 10, 2.0, 0.2, "constant") for step in range(12)]
    assert rates == [1.0, 2.0, *[2.0] * 10]
    rates = [learning_rate(step, 10, 2.0, 0.2, "linear") for step in range(12)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    rates = [learning_rate(step, 4, 1.0, 0.0, "cosine") for step in range(5)]
    assert rates == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0])
    with pytest.raises(ValueError, match="valid: constant, linear, cosine"):
        learning_rate(1, 4, 1.0, 0.0, "polynomial")


def test_the_schedule_counts_optimiser_steps(make_learner: MakeLearner) -> None:
    config = LearnerConfig(
        policy_lr=1.0, critic_lr=1.0, lr_warmup_frac=0.0, lr_schedule="linear", critic_warmup_steps=2,
    )  # fmt: skip
    learner = make_learner(plain(num_epochs=2), config=config, num_updates=6)
    # policy: 4 updates x 2 epochs x 1 mini-batch; critic: 6 x 2
    assert learner.learning_rates(1) == (1.0, 1.0)
    learner.policy_steps, learner.critic_steps = 2, 6
    assert learner.learning_rates(1) == pytest.approx((0.75, 0.5))
    assert learner.learning_rates(3) == pytest.approx((1 - 2 / 24, 1 - 6 / 36))
    scaled = make_learner(plain(num_epochs=2), config=config, num_updates=6, lr_scale=0.25)
    assert scaled.learning_rates(1) == (0.25, 0.25)


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dvpo"])
def test_learning_goes_the_right_way(algorithm: str, make_learner: MakeLearner) -> None:
    """Repeating one batch makes tokens of good responses more likely than those of bad ones, and the critic better."""
    samples = random_samples(16, 3)
    good = [s.reward > 0 for s in samples]
    options = {"critic": {"num_heads": 2, "num_quantiles": 32}} if algorithm == "dvpo" else {}
    learner = make_learner(algorithm, options, LearnerConfig(policy_lr=3e-4, critic_lr=3e-3, lr_warmup_frac=0.0))
    ids = [list(s.trajectory.token_ids) for s in samples]

    def gap() -> float:
        means = [
            sum(p for p, m in zip(row, s.trajectory.action_mask, strict=True) if m) / s.trajectory.num_response_tokens
            for row, s in zip(learner.logprobs(ids), samples, strict=True)
        ]
        count = sum(good)
        wins = sum(mean for mean, ok in zip(means, good, strict=True) if ok)
        return wins / count - (sum(means) - wins) / (len(good) - count)

    before = gap()
    losses = [to_floats(learner.update(samples, step).metrics) for step in range(6)]
    assert gap() > before + 0.05
    if algorithm != "grpo":
        assert losses[-1]["critic/loss"] < 0.8 * losses[0]["critic/loss"]

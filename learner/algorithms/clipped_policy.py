"""What all methods with a clipped policy ratio share: the policy loss, token rewards, advantage normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from learner.algorithms.base import Algorithm, AlgorithmConfig, without_effect
from learner.algorithms.corrections.order import check_fit
from learner.algorithms.invariance import MIXED, Answer, answer_of
from learner.algorithms.objectives import OBJECTIVES
from learner.algorithms.objectives.base import PolicyObjective
from learner.algorithms.objectives.prompt_reading import PromptReading, reading_gain
from learner.algorithms.records import (
    CorrectedRewards,
    Denominators,
    Estimates,
    LossOutput,
    OldOutputs,
    PolicyInputs,
    Rows,
    SampleWeights,
)
from learner.algorithms.sampler import SamplerMask, mean_over, sampler_factor, sampler_metrics
from learner.batch import TrainBatch
from learner.masking import WhitenMode, masked, sequence_mean, token_mean, whiten
from learner.maths.collective import Collective
from learner.maths.losses.kl import kl_estimate, penalised_rewards
from learner.maths.losses.policy import ClippedLoss, clipped_policy_loss
from learner.metrics import Last, Max, Metrics
from rollout.component import ComponentSpec, build


class ClippedPolicyConfig(AlgorithmConfig):
    """Options of the clipped policy loss."""

    clip_ratio_low: float = Field(0.2, ge=0.0, le=1.0, description="The policy ratio is clipped below at 1 minus this.")
    clip_ratio_high: float = Field(0.2, ge=0.0, description="The policy ratio is clipped above at 1 plus this.")
    dual_clip: float | None = Field(
        None, gt=1.0, description="Largest ratio that a negative advantage is paid for; null for no such bound."
    )
    importance_cap: float | None = Field(
        2.0,
        gt=0.0,
        description="Cap of the importance weight of learner over sampler; null leaves the weight out.",
    )
    sampler_mask: SamplerMask | None = Field(
        None, description="Leave tokens or responses out of the loss that the learner's policy would hardly have drawn."
    )
    kl_loss: Literal["k2", "k3"] = Field(
        "k3", description="Estimator of the KL penalty with kl_mode 'loss'; the gradient of k2 is the reverse KL's."
    )
    loss_aggregation: Literal["token_mean", "sequence_mean"] = Field(
        "token_mean", description="'token_mean': every token weighs the same; 'sequence_mean': every trajectory does."
    )
    whiten: WhitenMode = Field(
        "none", description="Normalisation of advantages over all action tokens of the batch: none, std, scale or mad."
    )
    adv_clip: float | None = Field(
        None, gt=0.0, description="Bound of the absolute normalised advantage; null for none."
    )
    prompt_reading: PromptReading | None = Field(
        None, description="A bonus for saying something else than with part of the prompt hidden; or null."
    )
    policy_objective: ComponentSpec | None = Field(
        None, description="What takes the place of the clipped surrogate, by its 'type'; null for the clip itself."
    )

    @field_validator("policy_objective", mode="before")
    @classmethod
    def _name_is_type(cls, value: Any) -> Any:
        """A plain name stands for an objective with its default options."""
        return {"type": value} if isinstance(value, str) else value


class ClippedPolicy(Algorithm):
    """PPO-clip over whatever advantages a subclass estimates."""

    Config = ClippedPolicyConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        where, spec = "algorithm.policy_objective", config.policy_objective
        self.objective: PolicyObjective | None = None
        if config.prompt_reading is not None:
            self.masked_prompt_share = config.prompt_reading.share
        if spec is not None:
            self.objective = build(spec, OBJECTIVES, PolicyObjective, where)
            without_effect(config, self.objective.replaces, f"with policy_objective {spec.type!r}")
            if self.objective.reads_verdicts:
                self.reads_verdicts = True
                names = [entry.type for entry in config.reward_correction]
                check_fit(self, names, self.corrections, reader=f"policy_objective {spec.type!r}")
        if config.kl_coef == 0.0 or config.kl_mode == "reward":
            without_effect(config, ("kl_loss",), "without a KL penalty in the loss (kl_coef, kl_mode: loss)")

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the frozen starting policy are needed."""
        return super().needs_reference or (self.objective is not None and self.objective.needs_reference)

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether :meth:`estimate` reads ``old.logprobs``."""
        return super().needs_old_logprobs or (self.objective is not None and self.objective.needs_old_logprobs)

    # --- what is told before a run ------------------------------------------------------------------------------

    def advantage_answer(self) -> Answer:
        """How the advantages answer before they are normalised; see :meth:`answer`."""
        return answer_of(self.estimate)

    def answer(self) -> Answer:
        """What is left of a map of all rewards behind KL cost, normalisation, loss and optimiser."""
        config, found = self.config, self.advantage_answer()
        kl_is_in_loss = config.kl_coef > 0.0 and config.kl_mode == "loss"
        if config.kl_coef > 0.0 and not kl_is_in_loss:
            found = replace(found, scale=MIXED)  # the KL cost keeps its size beside larger or smaller rewards
        found = found.take_out("whitening", shift=config.whiten in ("std", "mad"), scale=config.whiten != "none")
        # AdamW takes out a factor of the whole gradient only, and a bound leaves none of the whole.
        has_others = kl_is_in_loss or self.needs_entropy or config.prompt_reading is not None
        of_whole = config.adv_clip is None and not has_others and self._is_proportional
        return found.take_out("AdamW, which divides by the gradient's size,", scale=of_whole)

    @property
    def _is_proportional(self) -> bool:
        """Whether the surrogate grows in proportion to the advantages."""
        if self.objective is not None:
            return bool(self.objective.is_proportional)
        return all(
            getattr(type(self), name) is getattr(ClippedPolicy, name) for name in ("policy_loss", "clipped_loss")
        )

    def remarks(self) -> list[str]:
        """Also bounds of a step that cannot act, as there is only one step."""
        inert = self.bounds_of_steps()
        if self.config.num_epochs * self.config.num_minibatches > 1 or not inert:
            return super().remarks()
        names = f"{', '.join(inert[:-1])} and {inert[-1]} do" if len(inert) > 1 else f"{inert[0]} does"
        return [
            *super().remarks(),
            "algorithm.num_minibatches: one epoch of one mini-batch is one optimiser step a batch, and in that the "
            f"ratio to the policy before it is 1, so {names} not act; num_minibatches or num_epochs above 1 would let "
            "them",
        ]

    def bounds_of_steps(self) -> list[str]:
        """Options that bound how far an update's later steps go from where it started."""
        if self.objective is not None:
            return [f"policy_objective.{name}" for name in self.objective.inert_in_first_step]
        return ["clip_ratio_low", "clip_ratio_high", *(["dual_clip"] if self.config.dual_clip is not None else [])]

    # --- what every estimation uses -----------------------------------------------------------------------------

    def conclude(self, estimates: Estimates, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Let the policy objective look at the whole batch. Every :meth:`estimate` ends with it."""
        if self.objective is None:
            return estimates
        rows, metrics = self.objective.prepare(estimates.advantages, batch, old, world)
        extra = dict(estimates.extra) if rows is None else {**estimates.extra, self.objective: rows}
        return replace(estimates, extra=extra, metrics=estimates.metrics | metrics)

    def token_rewards(self, corrected: CorrectedRewards, old: OldOutputs) -> Tensor:
        """[batch seq] rewards, less the KL cost of each action token if ``kl_mode`` is 'reward'."""
        batch = corrected.batch
        if not (self.config.kl_coef > 0.0 and self.config.kl_mode == "reward"):
            return batch.rewards
        if old.ref_logprobs is None:
            raise ValueError("kl_mode 'reward' needs ref_logprobs")
        return penalised_rewards(batch.rewards, old.logprobs, old.ref_logprobs, batch.action_mask, self.config.kl_coef)

    def normalise(self, advantages: Tensor, mask: Tensor, world: Collective) -> tuple[Tensor, Metrics]:
        """Whiten over all ranks, then clip. The metrics are of the advantages before whitening."""
        population = world.gather(advantages[mask])
        result = whiten(advantages, mask, self.config.whiten, population)
        if self.config.adv_clip is not None:
            result = result.clamp(-self.config.adv_clip, self.config.adv_clip)
        return result, advantage_metrics(population)

    def carried_weights(self, corrected: CorrectedRewards) -> dict[Any, Rows]:
        """Sample weights, for ``Estimates.extra``."""
        return {SampleWeights: SampleWeights(corrected.policy_weights, corrected.critic_weights)}

    def clipped_loss(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """The per-token surrogate, or what ``policy_objective`` puts in its place."""
        if self.objective is not None:
            return self.objective(inputs, estimates)
        return clipped_policy_loss(
            inputs.logprobs,
            inputs.old_logprobs,
            estimates.advantages,
            inputs.action_mask,
            self.config.clip_ratio_low,
            self.config.clip_ratio_high,
            self.config.dual_clip,
        )

    def policy_loss(self, inputs: PolicyInputs, estimates: Estimates, counts: Denominators) -> LossOutput:
        """Clipped surrogate, times importance and sample weights, plus KL and minus entropy where asked for."""
        mask = inputs.action_mask
        surrogate = self.clipped_loss(inputs, estimates)
        loss = surrogate.loss
        metrics = ratio_metrics(inputs, surrogate)
        metrics |= sampler_metrics(inputs, self.config.importance_cap)
        has_weight = not (self.objective and self.objective.over_sampler)
        cap = self.config.importance_cap if has_weight else None
        factor, found = sampler_factor(inputs, cap, self.config.sampler_mask)
        metrics |= found
        if factor is not None:
            loss = loss * factor
        weights = estimates.weights.policy
        if weights is not None:
            loss = loss * weights[:, None]
        parts = {"surrogate": loss}
        if inputs.ref_logprobs is not None:
            kl = kl_estimate(inputs.logprobs, inputs.ref_logprobs, mask, "k3")
            metrics["policy/ref_kl"] = mean_over(kl, mask)
            if self.config.kl_mode == "loss":
                if self.config.kl_loss != "k3":
                    kl = kl_estimate(inputs.logprobs, inputs.ref_logprobs, mask, self.config.kl_loss)
                parts["kl"] = self.config.kl_coef * kl
        if inputs.entropy is not None:
            parts["entropy"] = -self.entropy_coef * masked(inputs.entropy, mask)
        if self.config.prompt_reading is not None:
            parts["prompt"], found = self._reading_loss(inputs)
            metrics |= found
        return LossOutput(self.combine(parts, mask, estimates, counts), metrics)

    def _reading_loss(self, inputs: PolicyInputs) -> tuple[Tensor, Metrics]:
        """The bonus for reading the prompt as a loss, [batch seq]."""
        if inputs.masked_logprobs is None:
            raise ValueError("prompt_reading needs masked_logprobs")
        options, mask = self.config.prompt_reading, inputs.action_mask
        gain = reading_gain(inputs.logprobs, inputs.masked_logprobs, mask, options.max_log_ratio)
        return -options.coef * gain, {"policy/prompt_kl": mean_over(gain, mask)}

    def combine(self, parts: dict[str, Tensor], mask: Tensor, estimates: Estimates, counts: Denominators) -> Tensor:
        """This micro-batch's share of the global loss: the sum of its named parts, each [batch seq]."""
        first, *others = parts.values()
        for part in others:
            first = first + part
        return self.aggregate(first, mask, counts)

    def aggregate(self, loss: Tensor, mask: Tensor, counts: Denominators) -> Tensor:
        """This micro-batch's share of the global loss."""
        if self.config.loss_aggregation == "sequence_mean":
            return sequence_mean(loss, mask, counts.num_trajectories)
        return token_mean(loss, mask, counts.num_action_tokens)


def advantage_metrics(population: Tensor) -> Metrics:
    """Moments of the advantages [n] of all ranks' action tokens, before whitening."""
    if population.numel() == 0:
        return {}
    wide = population.double()
    mean, std = float(wide.mean()), float(wide.std(correction=0))
    kurtosis = float(((wide - mean) / std).pow(4).mean()) - 3.0 if std > 0.0 else 0.0
    return {
        "advantage/mean": Last(mean),
        "advantage/std": Last(std),
        "advantage/excess_kurtosis": Last(kurtosis),
        "advantage/positive_frac": Last(float((population > 0).double().mean())),
    }


def ratio_metrics(inputs: PolicyInputs, surrogate: ClippedLoss) -> Metrics:
    """How far the current policy is from the one before the update."""
    mask = inputs.action_mask
    shift = kl_estimate(inputs.old_logprobs, inputs.logprobs.detach(), mask, "k3")  # of KL(old || current)
    ratios = surrogate.ratio[mask]
    return {
        "policy/approx_kl": mean_over(shift, mask),
        "policy/clip_frac": mean_over(surrogate.clipped.double(), mask),
        "policy/ratio_max": Max(float(ratios.max()) if ratios.numel() else 0.0),
    }

"""SPO: a lasting value of each prompt as the baseline, and advantages normalised over the batch. No groups."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from learner.algorithms.clipped_policy import ClippedPolicy, ClippedPolicyConfig
from learner.algorithms.invariance import answers, gone
from learner.algorithms.records import Estimates, OldOutputs
from learner.algorithms.without_critic.beta_tracker import BetaTracker
from learner.batch import TrainBatch
from learner.masking import location_scale, masked
from learner.maths.collective import Collective, apply_globally
from learner.metrics import Last, Mean

TRACKED = "the tracker, once it has learned such rewards,"


class SinglestreamPO(ClippedPolicy):
    """Single-stream policy optimisation (2509.13232): ``A = (r - v) / std``, v the prompt's tracked value before r.

    The value is :class:`.beta_tracker.BetaTracker`'s; r - v is normalised over all trajectories of the batch, is the
    same for every token, and is followed by the clipped ratio. One sample of a prompt is enough, and prompts that recur
    are what it is for: on one that never came before v is 1/2, as the authors' program has it without values that were
    measured before the run.

    Not done: the paper lets rho depend on how far the policy has moved since a prompt's last visit (a KL between the
    policies on that visit's response, which takes a forward pass over old responses), and draws prompts by their
    uncertainty. A constant rho is an option of the authors' program too, with its default. Values are detached.
    """

    class Config(ClippedPolicyConfig):
        """Options of SPO."""

        rho: float = Field(
            0.875, gt=0.0, le=1.0, description="What a visit of a prompt leaves of what was known of it before."
        )
        prior: float = Field(
            0.5, gt=0.0, description="Successes and failures that a prompt is taken to have had before its first visit."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tracker = BetaTracker(config.rho, config.prior)

    def compare(self, scores: Tensor, prompt_keys: Tensor) -> Tensor:
        """Advantages of the trajectories of the global batch, [n]; 0 where all are equal."""
        raw = scores.double() - self.tracker.means(prompt_keys)
        mean, std = location_scale(raw, "std")
        return ((raw - mean) / (std + 1e-8)).to(scores.dtype)

    @answers(shift=gone(TRACKED), scale=gone("normalisation over the batch"))
    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Advantages against the tracked values, which learn from the same scores afterwards."""
        corrected = self.correct_rewards(batch, old, world)
        batch, mask = corrected.batch, corrected.batch.action_mask
        rewards = self.token_rewards(corrected, old)
        scores = batch.scores + (rewards - batch.rewards).sum(dim=1)  # less the trajectory's KL cost
        per_row = apply_globally(self.compare, world, scores, batch.prompt_keys)
        values, weights = self.tracker.means(batch.prompt_keys), self.tracker.weights(batch.prompt_keys)
        self.tracker.add(world.gather(batch.prompt_keys), world.gather(scores))
        advantages, metrics = self.normalise(masked(per_row[:, None].expand(mask.shape), mask), mask, world)
        count = float(len(batch))
        metrics |= {
            "reward/tracked_value": Mean(float(values.sum()), count),
            "reward/tracked_error": Mean(float((scores.double() - values).abs().sum()), count),
            "reward/tracked_scores": Mean(float(weights.sum()), count),
            "reward/tracked_prompts": Last(float(len(self.tracker.counts))),
        }
        estimates = Estimates(advantages, metrics=metrics | corrected.metrics, extra=self.carried_weights(corrected))
        return self.conclude(estimates, batch, old, world)

    def state_dict(self) -> dict[str, Any]:
        """See :class:`learner.algorithms.base.Algorithm`; with what is known of each prompt."""
        return {**super().state_dict(), "tracker": self.tracker.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        super().load_state_dict(state)
        self.tracker.load_state_dict(state["tracker"])

"""What is trained on at all: prompts whose samples differ, or trajectories whose true score is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.metrics import Last
from rollout.component import StrictModel
from rollout.trajectory import ScoredTrajectory


class GroupFilter(RewardCorrection):
    """DAPO's group filtering (2503.14476, 3.2): a prompt whose observed scores are all equal is not trained on.

    By comparison such samples teach nothing, and in a method that compares them they only dilute the loss's
    denominators, a KL penalty and an entropy bonus. What they took to generate is lost: the tokens are reported, of
    this update and since the start. The paper draws further prompts until the batch is full again; that is not done,
    so batches are smaller. If no prompt is left, all stay. It looks at the scores before any correction.
    """

    changes_scores = False
    selects = True
    min_samples_per_prompt = 2

    class Config(StrictModel):
        """It has no options."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dropped_share = self.dropped_tokens = self.tokens = 0.0
        self.total_dropped = self.total = 0.0

    def select(self, samples: Sequence[ScoredTrajectory]) -> Sequence[ScoredTrajectory]:
        """The samples of prompts with more than one score, in order."""
        scores: dict[str, set[float]] = {}
        for sample in samples:
            scores.setdefault(sample.group_id, set()).add(sample.reward)
        kept = [sample for sample in samples if len(scores[sample.group_id]) > 1]
        kept = kept or list(samples)
        lengths = (sum(s.trajectory.num_response_tokens for s in group) for group in (samples, kept))
        self.tokens, kept_tokens = map(float, lengths)
        self.dropped_tokens = self.tokens - kept_tokens
        self.dropped_share = 1.0 - len(kept) / max(1, len(samples))
        self.total += self.tokens
        self.total_dropped += self.dropped_tokens
        return kept

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """Scores stay."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Report what was left out."""
        metrics = {
            "correction/group_filter_frac": Last(self.dropped_share),
            "correction/group_filter_token_frac": Last(self.dropped_tokens / max(1.0, self.tokens)),
            "correction/group_filter_total_token_frac": Last(self.total_dropped / max(1.0, self.total)),
        }
        return replace(current, metrics={**current.metrics, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """Tokens since the start of the run."""
        return {"total": self.total, "total_dropped": self.total_dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.total, self.total_dropped = float(state["total"]), float(state["total_dropped"])


class GoldOnly(RewardCorrection):
    """Train on trajectories with a gold label only, by that label (``reward.gold_labels``); noisy scores are not read.

    What a few true labels are worth by themselves, for comparison. A batch without any label teaches nothing: all its
    weights are 0. With a few labels a prompt, methods that compare a prompt's samples have little to compare.
    """

    reads_gold = True
    needs_gold = True
    selects = True

    class Config(StrictModel):
        """It has no options."""

    def select(self, samples: Sequence[ScoredTrajectory]) -> Sequence[ScoredTrajectory]:
        """The samples with a label, in order; all of them if there is none."""
        return [sample for sample in samples if sample.gold_label is not None] or samples

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Labels take the place of scores; what has none weighs nothing."""
        labels, scores = current.batch.gold_labels, current.batch.scores
        known = labels.isfinite()
        weight = known.to(scores)
        everyone = world.gather(known.double())
        found = current.with_scores(
            torch.where(known, labels.to(scores), torch.zeros_like(scores)),
            {"correction/gold_only_labels": Last(float(everyone.sum()))},
        )
        return replace(
            found,
            policy_weights=weight if found.policy_weights is None else found.policy_weights * weight,
            critic_weights=weight if found.critic_weights is None else found.critic_weights * weight,
        )

"""A simulated majority-vote label: experiments with pseudo-labels of a chosen quality, where the truth is known."""

from __future__ import annotations

import random
from itertools import accumulate

from pydantic import Field

from rollout.noise.base import RewardNoise, require_binary
from rollout.noise.votes import final_answer
from rollout.seeding import stream
from rollout.trajectory import Prompt, Trajectory


class MajorityVote(RewardNoise):
    """Scores against the mode of n simulated votes instead of the reference.

    A prompt has the same label every time. It is drawn like this: c ~ Beta(concentration * accuracy,
    concentration * (1 - accuracy)); each of ``votes`` votes is right with probability c, otherwise one of
    ``num_wrong_answers`` wrong answers, of which the k-th has a probability proportional to 1/k (Zipf); the label is
    the mode, ties at random. Where the label is right the score is the clean one. Where it is wrong a right answer
    scores 0, and a wrong answer scores 1 if it is that label: each wrong answer (its text, for each prompt id) is the
    k-th one with the same Zipf distribution. So errors sit on hard prompts and repeat. Studied for 8 to 64 votes, mean
    accuracies from .3 to .7 and 3 to 20 wrong answers.

    Source: the pseudo-labels of arXiv 2504.16084 and 2512.03847; the distribution of the votes is our choice. For
    labels from the policy's real votes see :func:`rollout.noise.votes.label_by_votes`.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        votes: int = Field(16, ge=1, le=1024, description="Number n of simulated votes on a prompt.")
        accuracy: float = Field(
            0.5, gt=0.0, lt=1.0, description="Mean over prompts of the probability that one vote is right."
        )
        concentration: float = Field(
            2.0, gt=0.0, description="Sum of the parameters of the Beta distribution; small: prompts are easy or hard."
        )
        num_wrong_answers: int = Field(10, ge=1, le=1000, description="Number W of wrong answers to a prompt.")
        seed: int = Field(
            0, description="Seed of the votes; the run's seed does not enter, so each run has the same labels."
        )

    config: MajorityVote.Config

    def label(self, prompt_id: str) -> int:
        """The label of a prompt: 0 is the right answer, k the k-th wrong one."""
        config = self.config
        rng = stream(config.seed, prompt_id, 0, "noise.majority_vote.label")
        right = rng.betavariate(config.concentration * config.accuracy, config.concentration * (1.0 - config.accuracy))
        counts = [0] * (config.num_wrong_answers + 1)
        for _ in range(config.votes):
            counts[0 if rng.random() < right else self._wrong_answer(rng)] += 1
        return rng.choice([answer for answer, count in enumerate(counts) if count == max(counts)])

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """1 if the response's answer is the label, else 0.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        require_binary(reward, self)
        label = self.label(prompt.prompt_id)
        if label == 0:
            return reward
        if reward == 1.0:
            return 0.0
        purpose = f"noise.majority_vote.answer\x1f{final_answer(trajectory.response_text)}"
        return float(self._wrong_answer(stream(self.config.seed, prompt.prompt_id, 0, purpose)) == label)

    def _wrong_answer(self, rng: random.Random) -> int:
        ranks = range(1, self.config.num_wrong_answers + 1)
        return rng.choices(ranks, cum_weights=list(accumulate(1.0 / rank for rank in ranks)))[0]

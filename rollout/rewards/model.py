"""``model``: scores from a reward model, which workers of its own hold and run on batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import Field

from rollout.component import PathText
from rollout.rewards.base import Reward
from rollout.trajectory import Message, Prompt, Trajectory


class Scorer(Protocol):
    """Whoever runs the model."""

    async def ready(self) -> None:
        """Answers once the model is loaded. Raises why it could not be."""
        ...

    async def score(self, messages: Sequence[Message]) -> float:
        """The model's logit for a conversation that ends with the response.

        Raises:
            Abstain: the conversation is longer than the model may read.
            RewardUnavailable: the worker was lost; another call may succeed.
        """
        ...


class ModelReward(Reward):
    """A Hugging Face sequence-classification model with one label reads prompt and response and gives a logit."""

    class Config(Reward.Config):
        """Options of this reward."""

        path: PathText = Field(
            min_length=1, description="Model folder or hub id, for example made by `dvpo reward-model train`."
        )
        output: Literal["logit", "probability", "binary"] = Field(
            "logit",
            description="'logit': as the model gives it, minus the threshold. 'probability': the logistic function of "
            "that. 'binary': 1 where that is above 0, else 0.",
        )
        threshold: float = Field(
            0.0, description="Logit that parts good from bad; `dvpo reward-model train` reports the best one."
        )
        max_tokens: int = Field(
            1024, ge=1, description="Longest conversation in the model's tokens; of longer ones the reward abstains."
        )
        batch_size: int = Field(32, ge=1, le=4096, description="Most conversations in one forward pass.")
        max_wait_ms: float = Field(
            5.0, ge=0.0, le=10_000.0, description="How long an idle worker waits for a batch to fill, in milliseconds."
        )
        dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the model's weights.")
        num_workers: int = Field(1, ge=1, le=256, description="Processes that hold the model.")
        num_cpus: float = Field(1.0, gt=0.0, le=4096.0, description="CPUs each of them asks for.")
        num_gpus: float = Field(0.0, ge=0.0, le=1.0, description="GPUs each of them asks for; 0 computes on CPUs.")

    config: ModelReward.Config

    def __init__(self, config: ModelReward.Config) -> None:
        super().__init__(config)
        self._scorer: Scorer | None = None

    def bind(self, scorer: Scorer) -> None:
        """Name who runs the model; needed before the first call."""
        self._scorer = scorer

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        if self._scorer is None:
            raise RuntimeError("this reward model has not been bound to a scorer")
        logit = await self._scorer.score(conversation(prompt, trajectory)) - self.config.threshold
        match self.config.output:
            case "logit":
                return logit
            case "probability":
                return 0.5 * (1.0 + math.tanh(0.5 * logit))
            case "binary":
                return logit if math.isnan(logit) else float(logit > 0.0)


def conversation(prompt: Prompt, trajectory: Trajectory) -> tuple[Message, ...]:
    """The prompt and everything that was said after it: of one response, or of several turns."""
    said = trajectory.messages or ({"role": "assistant", "content": trajectory.response_text},)
    return (*prompt.messages, *said)

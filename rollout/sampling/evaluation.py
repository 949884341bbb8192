"""Options of an evaluation: besides greedy answers, samples at other settings and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, field_validator, model_validator

from rollout.component import KeyPath, StrictModel
from rollout.config import RolloutConfig, SamplingConfig

MAX_SAMPLES = 1024
SETTING_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"


class EvaluationSampling(SamplingConfig):
    """How responses of an evaluation are sampled. Nothing is trained on them, so the distribution may be truncated."""

    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Smallest set of tokens with this probability; 1 is all.")
    top_k: int = Field(0, ge=0, description="So many of the likeliest tokens; 0 is all.")
    min_p: float = Field(0.0, ge=0.0, le=1.0, description="Tokens with this share of the likeliest one's probability.")
    stream: str = Field("", description="Name of the random streams, so that two settings draw independently.")


class SampledEvaluation(StrictModel):
    """Several responses to each held-out prompt, at one setting."""

    name: str | None = Field(
        None, pattern=SETTING_NAME, description="What metrics call it; by default its temperature, such as t0.6."
    )
    temperature: float = Field(1.0, gt=0.0, le=10.0, description="Softmax temperature.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Sample from the fewest tokens that have this probability.")
    top_k: int = Field(0, ge=0, le=1_000_000, description="Sample from this many of the likeliest tokens; 0 is all.")
    min_p: float = Field(
        0.0, ge=0.0, le=1.0, description="Sample from tokens at least this share as likely as the likeliest; 0 is all."
    )
    samples: int = Field(8, ge=1, le=MAX_SAMPLES, description="Responses to each prompt.")
    at: tuple[int, ...] = Field(
        (), description="Values of k for pass@k and majority@k, at most 'samples'; by default 1 and all samples."
    )
    max_response_tokens: int | None = Field(
        None, ge=1, description="Longest response, in tokens; by default that of rollout.sampling."
    )

    @field_validator("at", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _enough_samples(self) -> SampledEvaluation:
        for k in self.at:
            if not 1 <= k <= self.samples:
                raise ValueError(f"'at' has {k}, but there are {self.samples} samples of each prompt")
        if len(set(self.at)) < len(self.at):
            raise ValueError("'at' has a number twice")
        return self

    @property
    def label(self) -> str:
        """What metrics call the setting."""
        return self.name or f"t{self.temperature:g}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of k, ascending."""
        return tuple(sorted(self.at)) or tuple(sorted({1, self.samples}))

    def sampling(self, training: SamplingConfig) -> EvaluationSampling:
        """How an engine samples; what is not said here is as in training."""
        return EvaluationSampling(
            temperature=self.temperature,
            max_response_tokens=self.max_response_tokens or training.max_response_tokens,
            stop=training.stop,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            stream=self.label,
        )


class EvaluationConfig(StrictModel):
    """What an evaluation measures besides greedy answers, in a run and in `dvpo eval`. docs/evaluation.md."""

    sampled: tuple[SampledEvaluation, ...] = Field(
        (), description="Settings at which several responses to each prompt are sampled, for pass@k and majority@k."
    )
    category: str | None = Field(
        None, min_length=1, description="Column of the data whose values are categories with an accuracy each."
    )

    @field_validator("sampled")
    @classmethod
    def _labels_differ(cls, settings: tuple[SampledEvaluation, ...]) -> tuple[SampledEvaluation, ...]:
        labels = [setting.label for setting in settings]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two settings are called {label!r}; give them different names")
        return settings

    def conflicts(self, rollout: RolloutConfig) -> Iterator[tuple[KeyPath, str]]:
        """What the engines of a run cannot do: the key to change, and why."""
        prompt, longest = rollout.max_prompt_tokens, rollout.longest_tokens
        for number, setting in enumerate(self.sampled):
            wanted = setting.max_response_tokens or 0
            if prompt + wanted > longest:
                yield (
                    ("evaluation", "sampled", number, "max_response_tokens"),
                    f"{wanted} and a prompt of {prompt} (rollout.max_prompt_tokens) are more than the {longest} tokens "
                    f"that engines hold: take at most {longest - prompt}, or raise "
                    "rollout.sampling.max_response_tokens",
                )

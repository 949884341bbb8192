"""What ``dvpo reward-model train`` needs to know."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.config.yaml_source import ConfigSource, read_source
from learner.reward_model.options import OptimisationConfig
from rollout.component import ComponentSpec, PathText, StrictModel, UserError, validation_problems


class RewardModelConfig(StrictModel):
    """One training of a reward model."""

    model: PathText = Field(
        min_length=1, description="What it starts from: folder or hub id of a causal LM or of a reward model."
    )
    output: PathText = Field(min_length=1, description="Folder for model, tokenizer and reward_model_report.json.")
    train: tuple[PathText, ...] = Field(
        min_length=1, description="Preference pairs, .jsonl or .parquet; paths or globs."
    )
    eval: tuple[PathText, ...] = Field(
        (), description="Held-out pairs. None: a share of the training pairs is held out."
    )
    eval_frac: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of prompts whose pairs are held out; 0.1 where 'eval' is not given."
    )
    num_train_pairs: int | None = Field(
        None, ge=1, description="Pairs to train on, chosen by the seed; none is all that are not held out."
    )
    max_tokens: int = Field(1024, ge=1, description="Longest conversation, in tokens.")
    on_bad_row: Literal["error", "reject"] = Field(
        "error",
        description="'error': nothing starts. 'reject': malformed and over-long rows are left out, counted, and "
        "written with the reason to rejects.jsonl in the output folder.",
    )
    loss: ComponentSpec = Field(
        default_factory=lambda: ComponentSpec(type="bradley_terry"),
        description="Loss of the pairs: bradley_terry, ropo or dr_dpo, with its options.",
    )
    optimisation: OptimisationConfig = Field(default_factory=OptimisationConfig, description="How it is optimised.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto' takes a GPU if there is one.")
    seed: int = Field(0, ge=0, lt=2**31, description="Fixes the new head, the held-out prompts and the order.")

    @field_validator("train", "eval", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> Self:
        if self.eval and self.eval_frac is not None:
            raise ValueError("'eval' names the held-out pairs, so 'eval_frac' would do nothing; give one of them")
        return self


def load_reward_model_config(path: str | Path, overrides: Iterable[str] = ()) -> tuple[ConfigSource, RewardModelConfig]:
    """Read the configuration from YAML and apply ``a.b=value`` overrides; with where each value was written.

    Raises:
        UserError: the file cannot be read, or a key or value is wrong; the message names file, line and key.
    """
    source = read_source(path, overrides)
    try:
        return source, RewardModelConfig.model_validate(source.data)
    except ValidationError as error:
        raise UserError(source.describe(validation_problems(error, RewardModelConfig))) from error

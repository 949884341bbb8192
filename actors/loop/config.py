"""Options of the loop itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rollout.component import StrictModel

PartialGroups = Literal["train", "drop", "refill"]
"""What becomes of the scored samples of a prompt when others of it have no score; see docs/rewards.md."""


class SamplingBudgetConfig(StrictModel):
    """How many samples prompts get where they do not all get the same; ``training.samples_per_prompt`` is the most."""

    mean: int = Field(ge=2, le=65_536, description="Samples of a prompt on average; exact, as the total is fixed.")
    pilot: int = Field(
        ge=1,
        le=65_535,
        description="First samples of every prompt, which say how unsure the policy is; the others are allotted by it.",
    )

    def problem(self, most: int) -> str:
        """Why it cannot be, with at most ``most`` samples of a prompt; empty if it can."""
        if not self.pilot < self.mean <= most:
            return (
                f"sampling_budget needs pilot < mean <= samples_per_prompt, the most that a prompt can get; got "
                f"{self.pilot}, {self.mean} and {most}"
            )
        return ""


class TrainingConfig(StrictModel):
    """How long to train, on how much data a step, and when to evaluate and save."""

    num_steps: int = Field(500, ge=1, le=10_000_000, description="Training steps: each uses one batch of trajectories.")
    prompts_per_step: int = Field(64, ge=1, le=1_000_000, description="Prompts in the batch of one step.")
    samples_per_prompt: int = Field(8, ge=1, le=65_536, description="Trajectories sampled for each prompt.")
    sampling_budget: SamplingBudgetConfig | None = Field(
        None, description="Sample prompts more often that the policy is unsure of, at the same total; or null."
    )
    max_staleness: int = Field(
        0,
        ge=0,
        le=64,
        description="Weight versions a trajectory may be behind when it is trained on; 0 alternates generation and "
        "training, more lets them overlap.",
    )
    partial_groups: PartialGroups = Field(
        "train",
        description="A prompt of which some samples have no score: 'train' on the others, 'drop' them too, or "
        "'refill': sample again in the place of those, up to three times each.",
    )
    eval_every_steps: int = Field(50, ge=0, description="Steps between evaluations; 0 is only before and after.")
    num_eval_prompts: int = Field(256, ge=1, description="Prompts evaluated per split, at most.")
    checkpoint_every_steps: int = Field(100, ge=0, description="Steps between checkpoints; 0 is only at the end.")
    keep_checkpoints: int = Field(3, ge=1, le=100_000, description="Newest checkpoints that are kept.")

    @model_validator(mode="after")
    def _budget_fits(self) -> TrainingConfig:
        if self.sampling_budget is not None and (problem := self.sampling_budget.problem(self.samples_per_prompt)):
            raise ValueError(problem)
        return self

    @property
    def trajectories_per_step(self) -> int:
        """Trajectories in the batch of one step."""
        budget = self.sampling_budget
        return self.prompts_per_step * (self.samples_per_prompt if budget is None else budget.mean)

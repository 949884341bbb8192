"""Options of the loop itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout.component import StrictModel

PartialGroups = Literal["train", "drop", "refill"]
"""What becomes of the scored samples of a prompt when others of it have no score; see docs/rewards.md."""


class TrainingConfig(StrictModel):
    """How long to train, on how much data a step, and when to evaluate and save."""

    num_steps: int = Field(500, ge=1, le=10_000_000, description="Training steps: each uses one batch of trajectories.")
    prompts_per_step: int = Field(64, ge=1, le=1_000_000, description="Prompts in the batch of one step.")
    samples_per_prompt: int = Field(8, ge=1, le=65_536, description="Trajectories sampled for each prompt.")
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

    @property
    def trajectories_per_step(self) -> int:
        """Trajectories in the batch of one step."""
        return self.prompts_per_step * self.samples_per_prompt


class RecoveryConfig(StrictModel):
    """What is done about processes that die or hang, and a disk that is full. See docs/promise.md."""

    max_restarts: int = Field(
        5, ge=0, le=1_000, description="Restarts of learner and controller in a row that got no further than before."
    )
    max_worker_losses: int = Field(
        5, ge=0, le=1_000, description="Losses of rollout workers in a row with no request finished in between."
    )
    max_quarantined_prompts: int = Field(
        16, ge=0, le=1_000_000, description="Prompts that may be set aside because they kill or wedge workers."
    )
    request_timeout_s: float = Field(
        1200.0, gt=0.0, description="Longest time one response may take, in seconds; its worker is replaced then."
    )
    stall_timeout_s: float = Field(
        1800.0, gt=0.0, description="Time without any progress after which the run is taken for stuck, in seconds."
    )
    on_stall: Literal["restart", "stop"] = Field(
        "restart", description="A stuck run: 'restart' from the newest checkpoint, or 'stop' with exit status 1."
    )
    disk_full_timeout_s: float = Field(
        3600.0, ge=0.0, description="How long to wait for space when the disk is full, in seconds; then the run stops."
    )

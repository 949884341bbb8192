"""Options of what is done when something is lost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout.component import StrictModel


class RecoveryConfig(StrictModel):
    """What is done about processes that die or hang, and a disk that is full. See docs/promise.md."""

    max_restarts: int = Field(
        5, ge=0, le=1_000, description="Restarts of learner and controller in a row that got no further than before."
    )
    max_worker_losses: int = Field(
        5,
        ge=0,
        le=1_000,
        description="Losses of one rollout worker, or reward worker, and of those in its place, in a row with no "
        "request finished in between.",
    )
    max_quarantined_prompts: int = Field(
        16, ge=0, le=1_000_000, description="Prompts that may be set aside because they kill or wedge workers."
    )
    request_timeout_s: float = Field(
        1200.0, gt=0.0, description="Longest time one response may take, in seconds; its worker is replaced then."
    )
    max_reward_losses: int = Field(
        3, ge=1, le=1_000, description="Reward workers that a trajectory may be lost with before it counts as an error."
    )
    max_reward_hangs: int = Field(
        2,
        ge=1,
        le=1_000,
        description="Of these, workers that gave no answer in time; from the second on the trajectory is alone there.",
    )
    reward_grace_s: float = Field(
        10.0,
        ge=0.0,
        description="A reward worker ends by itself what takes too long (reward.timeout_s and its retries); it counts "
        "as hung if it has not done so after this much more time, in seconds.",
    )
    reward_start_timeout_s: float = Field(
        300.0, gt=0.0, description="Longest time until a reward worker has imported and built the rewards, in seconds."
    )
    reward_health_timeout_s: float = Field(
        10.0,
        gt=0.0,
        description="Longest time for a reward worker to say whether calls hang in it, in seconds; then it is busy.",
    )
    controller_lease_s: float = Field(
        60.0,
        gt=0.0,
        description="A controller on another host than the driver stops by itself when it has not been asked for so "
        "long, in seconds; so it is as long at most that a lost one can go on beside the one in its place.",
    )
    resource_timeout_s: float = Field(
        1800.0,
        ge=0.0,
        description="How long to wait until the cluster has room again for processes whose host was lost, in seconds; "
        "then the run stops, to go on with --resume.",
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

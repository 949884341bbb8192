"""Options of the watch over the reward during training. See docs/audit.md."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout.audit.hacking import DetectorConfig
from rollout.component import StrictModel

TrustAction = Literal["off", "warn", "stop"]


class TrustConfig(StrictModel):
    """How far the reward can be trusted, from re-checked trajectories (reward.gold_share) during training."""

    window: int = Field(1000, ge=50, le=20_000, description="Newest re-checked trajectories that estimates are over.")
    min_labels: int = Field(
        50,
        ge=1,
        description="Right, and wrong, ones among them before their rates reach a correction with 'estimated: true'.",
    )
    detector: DetectorConfig = Field(default_factory=DetectorConfig, description="The watch for drift and hacking.")
    on_hacking: TrustAction = Field(
        "warn", description="The reward is being hacked: 'off', 'warn' (an event), or 'stop' (ends the run)."
    )
    on_drift: TrustAction = Field("warn", description="The reward judges differently than at the start: as above.")

"""Which trajectories share one draw of the noise.

Independent errors average out over samples; errors that repeat do not. Noise models that draw at random offer both
choices of method.md section 6 (unit and memory) through :class:`StructuredNoise`.
"""

from __future__ import annotations

import random
from typing import Literal

from pydantic import Field, model_validator

from rollout.component import StrictModel
from rollout.noise.base import RewardNoise
from rollout.seeding import stream
from rollout.trajectory import Prompt, Trajectory


class StructuredNoise(RewardNoise):
    """Noise whose draws may be shared by a group or repeat for ever.

    ======== ============ =======================================================================================
    unit     memory       one draw for each
    ======== ============ =======================================================================================
    rollout  resampled    trajectory (the default)
    rollout  persistent   (prompt, response text): a verifier that errs the same way whenever it sees the same
    group    resampled    (prompt, epoch): the whole group of a prompt errs together, anew in the next epoch
    group    persistent   prompt: a wrong label in the data set
    ======== ============ =======================================================================================

    All but the first draw from streams named by the noise model's own ``seed``, not by the run's: what repeats is a
    property of the data.
    """

    class Config(StrictModel):
        """Options every structured noise model has."""

        unit: Literal["rollout", "group"] = Field("rollout", description="What shares one draw within an epoch.")
        memory: Literal["resampled", "persistent"] = Field(
            "resampled", description="Whether the draw is made anew each time, or repeats for ever."
        )
        group_size: int | None = Field(
            None, ge=1, description="training.samples_per_prompt; required with unit 'group' and memory 'resampled'."
        )
        seed: int = Field(0, ge=0, description="Names the draws that are shared or repeat.")

        @model_validator(mode="after")
        def _group_size_where_needed(self) -> StructuredNoise.Config:
            needed = self.unit == "group" and self.memory == "resampled"
            if needed and self.group_size is None:
                raise ValueError("unit 'group' with memory 'resampled' needs group_size = training.samples_per_prompt")
            if self.group_size is not None and not needed:
                raise ValueError("group_size only has a meaning with unit 'group' and memory 'resampled'")
            return self

    config: StructuredNoise.Config

    def shared(self, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> random.Random:
        """The stream that this trajectory draws from; ``rng`` is the trajectory's own."""
        options, purpose = self.config, f"noise/{type(self).__name__}/{self.config.unit}/{self.config.memory}"
        if options.memory == "persistent":
            suffix = "" if options.unit == "group" else f"/{trajectory.response_text}"
            return stream(options.seed, prompt.prompt_id, 0, purpose + suffix)
        if options.unit == "group":
            assert options.group_size is not None
            return stream(options.seed, prompt.prompt_id, trajectory.sample_index // options.group_size, purpose)
        return rng

"""The latent of a bottleneck should hardly move when noise is put on the state that it is made of."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from learner.algorithms.critic.regularisers.base import CriticRegulariser, Penalty
from learner.algorithms.records import Estimates
from learner.algorithms.streams import stream_seeds
from learner.batch import TrainBatch
from learner.models.spec import CriticOutput
from rollout.component import StrictModel


class NoiseAugmented(CriticRegulariser):
    """``coef * token_mean KL(q(z | h) || q(z | h'))``, h' the state with noise; beside a ``bottleneck``.

    A transfer of RAVEN (2407.18632), which draws the latents of an image and of the same image with noise together
    inside a variational auto-encoder. Here it is the critic's state that noise is put on, in proportion to its size, as
    tokens have no small change; and a KL takes the place of the paper's paired prior (both our choice). The gradient
    goes through both latents. Noise is fresh in each step and the same wherever a row lands.
    """

    class Config(StrictModel):
        """Options of the comparison."""

        coef: float = Field(0.01, gt=0.0, description="Weight of the KL between both latents.")
        noise: float = Field(
            0.1, gt=0.0, le=10.0, description="Deviation of the noise, in units of the state's root mean square."
        )

    def model_options(self) -> dict[str, Any]:
        """See :class:`CriticRegulariser`."""
        return {"perturbation": self.config.noise}

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Seeds of the noise."""
        return {"perturbation_seeds": stream_seeds(batch.sample_seeds, "perturbation", step)}

    def penalties(self, output: CriticOutput, estimates: Estimates, progress: float) -> dict[str, Penalty]:
        """See :class:`CriticRegulariser`."""
        if output.perturbed_kl is None:
            raise ValueError("noise_augmented needs the KL between the latents of a state with and without noise")
        return {"perturbed_kl": Penalty(self.config.coef, None, output.perturbed_kl)}

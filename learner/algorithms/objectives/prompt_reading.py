"""A reward for reading the question: the policy should say something else when most of its prompt is hidden."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from learner.masking import masked
from rollout.component import StrictModel


class PromptReading(StrictModel):
    """Options of the KL between the policy that sees the whole prompt and the one that sees part of it.

    A transfer of PAPO (2507.06448) from images to text: there patches of the image are blackened, here tokens of the
    prompt are replaced by the padding token.
    """

    coef: float = Field(0.01, gt=0.0, description="Weight of the KL, which is maximised.")
    share: float = Field(0.6, gt=0.0, le=1.0, description="Chance that a token of the prompt is hidden.")
    max_log_ratio: float = Field(
        1.0, gt=0.0, description="Bound of a token's log-ratio, in nats; beyond it nothing is left to gain."
    )


def reading_gain(logprobs: Tensor, masked_logprobs: Tensor, action_mask: Tensor, max_log_ratio: float) -> Tensor:
    """``exp(d) - d - 1`` with ``d = log pi(o | whole prompt) - log pi(o | masked prompt)``, [batch seq] (2507.06448).

    The paper's estimator of the KL between both, at least 0. It has no upper bound and is known to be hacked; the
    paper adds entropies of both policies to its loss, here d is cut at ``+-max_log_ratio``, beyond which a token has no
    gradient (our choice). The masked policy is the one before the update and detached: an optimiser step then needs one
    pass with a gradient, as always, and cannot gain by making the masked policy worse.

    Args:
        logprobs: [batch seq], carries the gradient.
        masked_logprobs: [batch seq], detached here.
    """
    d = masked(logprobs, action_mask) - masked(masked_logprobs.detach(), action_mask)
    d = d.clamp(-max_log_ratio, max_log_ratio)
    return d.exp() - d - 1.0

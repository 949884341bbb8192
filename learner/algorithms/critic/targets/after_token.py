"""Decoupled VPO's advantage: the critic's value after each token."""

from __future__ import annotations

from torch import Tensor

from learner.algorithms.critic.targets.base import OldCritic
from learner.algorithms.critic.targets.lambda_return import LambdaReturn
from learner.algorithms.invariance import ALIKE, answers
from learner.maths.returns import lambda_returns


class AfterToken(LambdaReturn):
    """``A_t = Q(s_t, a_t)`` (2502.16944): text is deterministic, so Q is V at the next sampled token, or V after the
    last one. Targets are lambda-returns of the score; lam 0 is the paper's TD(0).

    No observed reward reaches the advantage except through the critic. Everything is detached.
    """

    ignores = ("lam_actor", "lam_actor_alpha", "bootstrap_truncated")
    needs_end_values = True

    @answers(shift=ALIKE, scale=ALIKE)
    def advantages(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""
        assert old.output.end_values is not None
        end = old.read_out(old.ensemble(old.output.end_values))
        no_rewards = old.rewards.new_zeros(old.rewards.shape)
        return lambda_returns(no_rewards, old.values, old.mask, 1.0, 0.0, end)

"""DVPO: PPO whose critic is an ensemble of quantile functions with shaped tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.clipped_policy import row_generators
from learner.algorithms.records import Estimates
from learner.algorithms.terms.running_scale import RunningScale
from learner.algorithms.with_critic.dvpo_config import DVPOConfig
from learner.algorithms.with_critic.dvpo_terms import compiled_form, term_metrics
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.losses import compiled, tail
from learner.maths.losses.value import clipped_step
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_per_level, quantile_mean
from learner.maths.quantiles.readouts import cvar_blend_weights, read_out, spectral_weights, trimmed_weights
from learner.maths.returns import discounted_returns, mixture_targets, quantile_gae
from learner.metrics import Last, Metrics

HEAD_MASK, SHIFT_GATE = "head_mask", "shift_gate"
"""Keys of ``Estimates.extra``: [batch 1 head] factors of the bootstrap; [batch] gate of the batch hinge."""
_MIXTURE_STREAM, _BOOTSTRAP_STREAM = 1, 2


class DVPO(ActorCritic):
    """Distributional value modelling PO (2512.03847), Eq 2 to 11; formulas are our forms of its components.

    The advantage is the exact scalar GAE of a linear read-out of the ensemble's quantiles (F1), so with the mean it is
    PPO's for V = mean quantile, and robustness enters through how the quantiles are learned: quantile Huber regression
    (Eq 3) of every head to the same detached ensemble targets (Eq 2), plus risk weights (Eq 4), tail calibration (Eq 5,
    6), mean shift (Eq 7), tail shape (Eq 8), tail curvature (Eq 9) and head consistency (Eq 10), each with a weight.
    """

    Config = DVPOConfig
    regresses_quantiles = True
    """Whether Eq 3 and 4 are what draws the law to its targets; to be set where :meth:`fit_terms` is replaced."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.scale = RunningScale(config.critic.prior_scale, config.scale_decay, config.scale_floor)
        self.alpha = _representable(config.alpha, config.critic.num_quantiles)
        self.beta = _representable(config.beta, config.critic.num_quantiles)

    @property
    def needs_old_values(self) -> bool:
        """For value clipping per quantile and for the old critic's tails."""
        return self.config.value_clip is not None or (self.config.shape_coef > 0.0 and self.config.shape_ref == "old")

    def read_out(self, quantile_values: Tensor) -> Tensor:
        """The configured read-out."""
        config, m = self.config, quantile_values.shape[-1]
        if config.adv_aggregate == "mean":
            return quantile_mean(quantile_values)
        if config.adv_aggregate == "trimmed":
            weights = trimmed_weights(m, config.trim_low, config.trim_high)
        elif config.adv_aggregate == "spectral":
            weights = spectral_weights(m, config.spectral_eta)
        else:
            weights = cvar_blend_weights(m, config.blend_lower, config.blend_upper, config.alpha, config.beta)
        return read_out(quantile_values, weights)

    def value_targets(
        self, rewards: Tensor, quantile_values: Tensor, batch: TrainBatch, bootstrap: Tensor | None
    ) -> Tensor:
        """Target atoms, Eq 2, in the configured mode; ascending."""
        config, mask = self.config, batch.action_mask
        if config.target_mode == "mc":
            last = None if bootstrap is None else quantile_mean(bootstrap)
            return discounted_returns(rewards, mask, config.gamma, last).unsqueeze(-1)
        if config.target_mode == "quantile_wise":
            return quantile_gae(rewards, quantile_values, mask, config.gamma, config.lam_critic, bootstrap)[1]
        generators = row_generators(batch.sample_seeds, _MIXTURE_STREAM)
        return mixture_targets(rewards, quantile_values, mask, config.gamma, config.lam_critic, generators, bootstrap)

    def prepare(
        self, returns: Tensor, quantile_values: Tensor, targets: Tensor, batch: TrainBatch, world: Collective
    ) -> tuple[dict[str, Tensor], Metrics]:
        """Update the running scale; draw the head bootstrap; decide the batch hinge."""
        config, mask = self.config, batch.action_mask
        scale = self.scale.update(world.gather(returns[mask]))
        extra: dict[str, Tensor] = {}
        if config.head_bootstrap_p is not None:
            generators = row_generators(batch.sample_seeds, _BOOTSTRAP_STREAM)
            draws = [torch.rand(config.critic.num_heads, generator=g) for g in generators]
            uniform = torch.stack(draws) if draws else torch.zeros(0, config.critic.num_heads)
            keep = (uniform < config.head_bootstrap_p).to(returns)
            extra[HEAD_MASK] = (keep / config.head_bootstrap_p).unsqueeze(1)
        if config.shift_coef and config.shift_form == "batch_hinge":
            gap = world.gather((quantile_mean(targets) - quantile_mean(quantile_values))[mask])
            extra[SHIFT_GATE] = torch.full_like(batch.scores, float(gap.numel() > 0 and float(gap.mean()) > 0.0))
        return extra, {"critic/scale": Last(scale)}

    def critic_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Ask for packed quantiles."""
        return {**super().critic_inputs(batch, estimates, step), "packed": True}

    def token_losses(
        self, quantile_values: Tensor, targets: Tensor, old_values: Tensor | None, extra: dict[str, Tensor]
    ) -> tuple[Tensor, Metrics]:
        """Eq 11: the weighted sum of Eq 3 to 10, each per head and averaged over heads (Eq 10 over pairs)."""
        share = extra.get(HEAD_MASK)
        terms = self._compiled(quantile_values)
        if terms is not None:
            total, sums = compiled.critic_terms(quantile_values, targets, terms, share)
            return total, term_metrics({name: (terms.coef[name], raw) for name, raw in sums.items()}, len(total))
        s = self.scale.value
        q, y = quantile_values / s, (targets / s).unsqueeze(-2)
        old = None if old_values is None else old_values / s
        total = torch.zeros_like(q[:, 0, 0])
        found: dict[str, tuple[float, float]] = {}
        for name, (coef, term) in self._terms(q, y, old, extra).items():
            if term.dim() == 2:
                term = (term if share is None else term * share).mean(dim=-1)
            total = total + coef * term
            found[name] = coef, float(term.detach().double().sum())
        return total, term_metrics(found, len(total))

    def _compiled(self, quantile_values: Tensor) -> compiled.CriticTerms | None:
        """All terms as they are configured, where one compiled pass can compute them."""
        if not self.regresses_quantiles or not compiled.serves(quantile_values, self.config.huber_kappa):
            return None
        return compiled_form(self.config, self.scale.value, self.alpha, self.beta)

    def _terms(
        self, q: Tensor, y: Tensor, old: Tensor | None, extra: dict[str, Tensor]
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term that is switched on: [n head] or, for Eq 10, [n]. q [n head M], y [n 1 K]."""
        c, terms = self.config, self.fit_terms(q, y, old, extra)
        cut = tail.cut_tails(q, self.alpha, self.beta)
        if c.cvar_coef:
            loss = tail.tail_calibration(cut, y, self.alpha, "lower", c.calibration, c.tail_sides)
            terms["lower_cvar"] = (c.cvar_coef, loss)
        if c.gain_coef:
            loss = tail.tail_calibration(cut, y, self.beta, "upper", c.calibration, c.tail_sides)
            terms["upper_gain"] = (c.gain_coef, loss)
        if c.shift_coef:
            terms["mean_shift"] = (c.shift_coef, self._shift(cut, y, extra))
        if c.shape_coef:
            low, high = self._shape_references(cut, y, old)
            loss = tail.tail_shape(cut, low, high, self.alpha, self.beta, c.shape_contract, c.shape_expand)
            terms["tail_shape"] = (c.shape_coef, loss)
        if c.curvature_coef:
            loss = tail.tail_curvature(cut, self.alpha, self.beta, c.curvature_form, c.curvature_min_iqr)
            terms["tail_curvature"] = (c.curvature_coef, loss)
        if c.consistency_coef and q.shape[-2] > 1:
            terms["head_consistency"] = (c.consistency_coef, tail.head_consistency(q))
        return terms

    def fit_terms(
        self, q: Tensor, y: Tensor, old: Tensor | None, extra: dict[str, Tensor]
    ) -> dict[str, tuple[float, Tensor]]:
        """Eq 3 and Eq 4: what draws the law to its targets; the piece that another head's loss replaces."""
        c, taus = self.config, midpoint_taus(q.shape[-1], q.device, q.dtype)
        per_level = self._regression(q, y, taus, old)
        if not c.risk_coef:
            return {"quantile_huber": (1.0, per_level.mean(dim=-1))}
        weights = torch.stack([torch.ones_like(taus), tail.risk_weights(taus, c.risk_eta, c.risk_direction)], dim=-1)
        plain, weighted = (per_level @ (weights / len(taus))).unbind(dim=-1)
        return {"quantile_huber": (1.0, plain), "risk_huber": (c.risk_coef, weighted)}

    def _regression(self, q: Tensor, y: Tensor, taus: Tensor, old: Tensor | None) -> Tensor:
        """Eq 3 per level; with ``value_clip`` the larger of the loss at q and at the clipped step, as in PPO."""
        kappa, clip = self.config.huber_kappa, self.config.value_clip
        loss = quantile_huber_per_level(q, y, taus, kappa, targets_sorted=True)
        if clip is None or old is None:
            return loss
        stepped = clipped_step(q, old, clip / self.scale.value)
        return torch.maximum(loss, quantile_huber_per_level(stepped, y, taus, kappa, targets_sorted=True))

    def _shift(self, q: tail.Tails, y: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Eq 7.

        The batch hinge ``max(0, mean_batch Y - mean_batch q)`` is linear with a gate that is found once per batch, from
        the old critic, so that it does not depend on how the batch is split (our choice).
        """
        if self.config.shift_form == "batch_hinge":
            return extra[SHIFT_GATE][:, None] * (quantile_mean(y) - q.mean)
        return tail.mean_shift(q, y, self.config.shift_form)

    def _shape_references(self, q: tail.Tails, y: Tensor, old: Tensor | None) -> tuple[Tensor, Tensor]:
        """Reference variances of the two tails for Eq 8."""
        ref = self.config.shape_ref
        if ref == "iqr":
            return tail.iqr_reference(q, self.alpha, "lower"), tail.iqr_reference(q, self.beta, "upper")
        if ref == "target":
            return tail.atom_tail_variance(y, self.alpha, "lower"), tail.atom_tail_variance(y, self.beta, "upper")
        if old is None:
            raise ValueError("shape_ref 'old' needs the old critic's values")
        before = old.mean(dim=-2, keepdim=True)
        return tail.tail_variance(before, self.alpha, "lower"), tail.tail_variance(before, self.beta, "upper")

    def state_dict(self) -> dict[str, Any]:
        """The running scale, and what the base keeps."""
        return {**super().state_dict(), "scale": self.scale.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the running scale."""
        super().load_state_dict(state)
        self.scale.load_state_dict(state["scale"])


def _representable(share: float, num_quantiles: int) -> float:
    """The tail share rounded to whole quantiles (our choice); as it is where no level lies in it and nothing uses it.

    So the tail mean of Eq 5 and 6 and the CVaR that it is calibrated to are of the same share.
    """
    count = math.floor(num_quantiles * share + 0.5 + 1e-9)
    return count / num_quantiles if count else share

"""Builds the pieces of a critic's side, sees that they fit each other, and runs them in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from learner.algorithms.base import without_effect
from learner.algorithms.critic.readouts import READOUTS, ReadOut
from learner.algorithms.critic.regularisers import REGULARISERS
from learner.algorithms.critic.regularisers.base import CriticRegulariser
from learner.algorithms.critic.targets import TARGETS
from learner.algorithms.critic.targets.base import CriticTarget
from learner.algorithms.critic.terms import TERMS
from learner.algorithms.critic.terms.base import BatchView, CriticTerm, HeadMask, Regression, TokenView, term_metrics
from learner.algorithms.critic.terms.compiled_pass import compiled_form
from learner.algorithms.critic.terms.running_scale import RunningScale
from learner.algorithms.critic.terms.tails import whole_share
from learner.algorithms.records import Denominators, Estimates, LossOutput, OldOutputs, Rows
from learner.algorithms.streams import row_generators
from learner.batch import TrainBatch
from learner.masking import token_mean
from learner.maths.collective import Collective
from learner.maths.losses import compiled
from learner.metrics import Last, Metrics
from learner.models.spec import CriticConfig, CriticOutput, VariationalCriticConfig
from rollout.component import ComponentSpec, build
from rollout.component.mistakes import Conflict, GivenTwice

_DEFAULT_SHARE = 0.1
"""Share of both tails in the one cut that terms have in common, where none of them says another."""


class CriticSide:
    """The pieces that a configuration names, in their order.

    Attributes:
        scale: s, the running scale of returns; kept up only if a term is in units of it.

    Args:
        config: an :class:`learner.algorithms.critic.config.ActorCriticConfig`.

    Raises:
        UserError: a piece is unknown, does not fit the critic, or an option has no effect beside the pieces.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.readout: ReadOut = self._piece("readout", config.readout, READOUTS, ReadOut)
        self.target: CriticTarget = self._piece("target", config.target, TARGETS, CriticTarget)
        self.terms: list[CriticTerm] = [
            self._piece(f"terms.{i}", spec, TERMS, CriticTerm) for i, spec in enumerate(config.terms)
        ]
        self.regularisers: list[CriticRegulariser] = [
            self._piece(f"regularisers.{i}", spec, REGULARISERS, CriticRegulariser)
            for i, spec in enumerate(config.regularisers)
        ]
        for term in self.terms:
            term.bind(config.critic)
        self.keeps_scale = any(term.in_units_of_scale for term in self.terms)
        self.scale = RunningScale(config.critic.prior_scale, config.scale_decay, config.scale_floor)
        self._shares = (self._common_share(0), self._common_share(1))
        self._regressions = tuple(term for term in self.terms if isinstance(term, Regression))
        self._refuse_without_effect()

    def _piece(self, where: str, spec: ComponentSpec, builtins: Mapping[str, str], base: type) -> Any:
        """Build a piece, and see whether it fits the critic."""
        piece = build(spec, builtins, base, f"algorithm.{where}")
        if misfit := piece.misfit(self.config.critic):
            raise Conflict(f"algorithm.{where}: {spec.type} {misfit}")
        return piece

    def _common_share(self, side: int) -> float:
        """The tail share of the first term that cuts this side."""
        for term in self.terms:
            if (share := term.shares[side]) is not None:
                return share
        return whole_share(_DEFAULT_SHARE, self.config.critic.num_quantiles)

    def _refuse_without_effect(self) -> None:
        config = self.config
        semantic = [piece for piece in self.regularisers if "sem_mode" in piece.model_options()]
        if len(semantic) > 1 or len({type(piece) for piece in self.regularisers}) < len(self.regularisers):
            raise GivenTwice("algorithm.regularisers: at most one of each type, and one of semantic and semantic_kl")
        needed = {key for piece in self.regularisers for key in piece.model_options()}
        if "perturbation" in needed and "bottleneck_dim" not in needed:
            raise Conflict(
                "algorithm.regularisers: noise_augmented compares latents, so it needs a bottleneck beside it"
            )
        without_effect(config, self.target.ignores, f"with target {config.target.type!r}")
        if config.lam_actor_alpha is not None:
            without_effect(config, ("lam_actor",), "beside lam_actor_alpha, which takes its place")
        if not self.keeps_scale:
            without_effect(config, ("scale_decay", "scale_floor"), "as no term is in units of the running scale")

    # --- what the model must have ----------------------------------------------------------------------------------

    @property
    def model_config(self) -> CriticConfig:
        """The heads, and what the model has to have beside them."""
        options: dict[str, Any] = {}
        for piece in self.regularisers:
            options |= piece.model_options()
        heads: CriticConfig = self.config.critic
        return VariationalCriticConfig(**heads.model_dump(), **options) if options else heads

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """What the pieces ask of the model in training, and packed quantiles unless one of them reads their layout."""
        inputs: dict[str, Any] = {}
        if not any(term.needs_layout for term in self.terms):
            inputs["packed"] = True
        if any(term.needs_end_values for term in self.terms):
            inputs["end_positions"] = batch.lengths - 1
        pieces: list[CriticTerm | CriticRegulariser] = [*self.terms, *self.regularisers]
        for piece in pieces:
            inputs |= piece.model_inputs(batch, estimates, step)
        return inputs

    # --- once a batch -----------------------------------------------------------------------------------------------

    def prepare(self, view: BatchView, old: OldOutputs, world: Collective) -> tuple[dict[Any, Rows], Metrics]:
        """Update the running scale, draw the head bootstrap, let every piece look at the whole batch.

        The scale comes first: it is what every term's loss of this batch is in units of.
        """
        extra: dict[Any, Rows] = {}
        metrics: Metrics = {}
        if self.keeps_scale:
            metrics["critic/scale"] = Last(self.scale.update(world.gather(view.returns[view.batch.action_mask])))
        if self.config.head_bootstrap_p is not None:
            extra[HeadMask] = self._head_mask(view)
        for term in self.terms:
            rows, measured = term.prepare(view, world)
            metrics |= measured
            extra |= {} if rows is None else {term: rows}
        for piece in self.regularisers:
            rows, measured = piece.prepare(view.batch, old, world)
            metrics |= measured
            extra |= {} if rows is None else {piece: rows}
        return extra, metrics

    def _head_mask(self, view: BatchView) -> HeadMask:
        """The bootstrap of the heads; draws are the trajectory's own, so they do not depend on rank or order."""
        p, heads = self.config.head_bootstrap_p, self.config.critic.num_heads
        generators = row_generators(view.batch.sample_seeds, "head_bootstrap")
        draws = [torch.rand(heads, generator=g) for g in generators]
        uniform = torch.stack(draws) if draws else torch.zeros(0, heads)
        keep = (uniform < p).to(view.returns)
        return HeadMask((keep / p).unsqueeze(1))

    # --- the loss of a micro-batch -----------------------------------------------------------------------------------

    def loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators, progress: float
    ) -> LossOutput:
        """``sum over action tokens / global number of action tokens`` of the terms, and the regularisers."""
        if estimates.value_targets is None:
            raise ValueError("critic_loss needs value_targets")
        mask, values = batch.action_mask, output.quantile_values
        view = TokenView(
            values=values if values.dim() == 3 else values[mask],  # packed, or by token
            targets=estimates.value_targets[mask],
            old_values=None if estimates.old_values is None else estimates.old_values[mask],
            output=output,
            action_mask=mask,
            rows={key: rows.of_tokens(mask) for key, rows in estimates.extra.items()},
        )
        losses, metrics = self.token_losses(view)
        weights = estimates.weights.of_tokens(mask).critic
        loss = (losses if weights is None else losses * weights).sum() / max(1.0, counts.num_action_tokens)
        for term in self.terms:
            if (found := term.rows_loss(output, batch, estimates, counts)) is not None:
                loss, metrics = loss + found.loss, metrics | found.metrics
        for piece in self.regularisers:
            for name, (coef, chosen, penalty) in piece.penalties(output, estimates, progress).items():
                each = penalty if chosen is None else chosen * penalty
                loss = loss + coef * token_mean(each, mask, counts.num_action_tokens)
                kept = penalty.detach()[mask if chosen is None else chosen > 0].double()
                metrics |= term_metrics({name: (coef, float(kept.sum()))}, kept.numel())
        return LossOutput(loss, metrics)

    def token_losses(self, view: TokenView) -> tuple[Tensor, Metrics]:
        """Weighted sum of the terms at each of n tokens, [n], and metrics; in one compiled pass where that can be.

        Terms are per head and averaged over heads, or already of a token; the head bootstrap weighs the former.
        """
        view = view.under(self.scale.value if self.keeps_scale else 1.0, self._shares, self._regressions)
        mask = view.rows.get(HeadMask)
        share = mask.factors if isinstance(mask, HeadMask) else None
        form = self.compiled_form(view.values)
        if form is not None:
            total, sums = compiled.critic_terms(view.values, view.targets, form, share)
            return total, term_metrics({name: (form.coef[name], raw) for name, raw in sums.items()}, len(total))
        total = torch.zeros_like(view.q[:, 0, 0])
        found: dict[str, tuple[float, float]] = {}
        metrics: Metrics = {}
        for term in self.terms:
            metrics |= term.metrics(view)
            for name, (coef, part) in term.parts(view).items():
                if part.dim() == 2:
                    part = (part if share is None else part * share).mean(dim=-1)
                total = total + coef * part
                found |= {name: (coef, float(part.detach().double().sum()))} if name else {}
        return total, metrics | term_metrics(found, len(total))

    def compiled_form(self, values: Tensor) -> compiled.CriticTerms | None:
        """All terms as they are configured, where one compiled pass can compute them for ``values`` [n head M]."""
        kappas = [term.kappa for term in self._regressions]
        if not kappas or not compiled.serves(values, min(kappas)):
            return None
        return compiled_form(self.terms, self.config.critic, self.scale.value, self._shares)

    def contrast_loss(self, output: CriticOutput, batch: TrainBatch, counts: Denominators) -> LossOutput:
        """Sum over the terms that have a loss of responses behind other prompts."""
        found = [term.contrast_loss(output, batch, counts) for term in self.terms if term.needs_contrast]
        loss = found[0].loss
        metrics = dict(found[0].metrics)
        for other in found[1:]:
            loss, metrics = loss + other.loss, metrics | other.metrics
        return LossOutput(loss, metrics)

"""What a term of the critic's loss is, and what it is shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.records import Denominators, Estimates, LossOutput, Rows
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.losses.tail import Tails, cut_tails
from learner.maths.losses.value import clipped_step
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_per_level
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import Component, StrictModel

R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class BatchView:
    """The whole batch at estimation, of this rank's rows. Everything is detached.

    Attributes:
        batch: with the corrected scores.
        returns: [batch seq], sampled discounted returns.
        value_means: [batch seq], means of the old critic's ensemble.
        target_means: [batch seq], means of the targets' atoms.
        whole: quantiles and targets, made when they are called for.
    """

    batch: TrainBatch
    returns: Tensor
    value_means: Tensor
    target_means: Tensor
    whole: tuple[Callable[[], Tensor], Callable[[], Tensor]]

    @property
    def quantiles(self) -> Tensor:
        """[batch seq M] of the old critic's ensemble: as much memory as a batch in micro-batches is there to save."""
        return self.whole[0]()

    @property
    def targets(self) -> Tensor:
        """[batch seq K] ascending atoms; the same is true of them."""
        return self.whole[1]()


@dataclass(frozen=True)
class TokenView:
    """The critic and its targets at the n sampled tokens of a micro-batch, and what several terms compute of them.

    Attributes:
        values: [n head M], carries the gradient, in reward units.
        targets: [n K] ascending atoms, in reward units.
        old_values: [n head M] of the old critic, or None.
        output: the model's whole output, where a term reads more than the quantiles; None in tests of single terms.
        action_mask: [batch seq], the places of the n tokens; None without ``output``.
        scale: s, in whose units :attr:`q`, :attr:`y` and :attr:`old` are.
        rows: what terms carried here from the estimation, of the n tokens.
        shares: tail shares that most terms use, so that they can share one cut.
        regressions: terms that weigh the levels of one quantile regression, see :meth:`regression`.
    """

    values: Tensor
    targets: Tensor
    old_values: Tensor | None = None
    output: CriticOutput | None = None
    action_mask: Tensor | None = None
    scale: float = 1.0
    rows: Mapping[Any, Rows] = field(default_factory=dict)
    shares: tuple[float, float] = (0.1, 0.1)
    regressions: Sequence[Regression] = ()

    def under(self, scale: float, shares: tuple[float, float], regressions: Sequence[Regression]) -> TokenView:
        """The same tokens, for a certain composition of terms."""
        return replace(self, scale=scale, shares=shares, regressions=regressions)

    @cached_property
    def q(self) -> Tensor:
        """[n head M], in units of s; carries the gradient."""
        return self.values / self.scale

    @cached_property
    def y(self) -> Tensor:
        """[n 1 K], in units of s."""
        return (self.targets / self.scale).unsqueeze(-2)

    @cached_property
    def old(self) -> Tensor | None:
        """[n head M] of the old critic, in units of s, or None."""
        return None if self.old_values is None else self.old_values / self.scale

    def carried(self, key: Any, kind: type[R]) -> R:
        """What a term carried here.

        Raises:
            ValueError: nothing was carried under this key.
        """
        found = self.rows.get(key)
        if not isinstance(found, kind):
            raise ValueError(f"no {kind.__name__} was carried from the estimation")
        return found

    def tails(self, lower: float | None = None, upper: float | None = None) -> Tails:
        """Mean and tails of :attr:`q`, cut once for all terms with the same shares: one pass backward serves them."""
        key = (self.shares[0] if lower is None else lower, self.shares[1] if upper is None else upper)
        if key not in self._cuts:
            self._cuts[key] = cut_tails(self.q, *key)
        return self._cuts[key]

    @cached_property
    def _cuts(self) -> dict[tuple[float, float], Tails]:
        return {}

    def regression(self, term: Regression) -> Tensor:
        """The quantile Huber loss of each head under a term's weights of the levels, [n head].

        The loss per level is computed once for all terms that differ in their weights only.
        """
        key = (term.kappa, term.clip)
        members = [other for other in self.regressions if (other.kappa, other.clip) == key] or [term]
        if key not in self._regressions:
            self._regressions[key] = self._weighted(members)
        return self._regressions[key][members.index(term)]

    @cached_property
    def _regressions(self) -> dict[tuple[float, float | None], Sequence[Tensor]]:
        return {}

    def _weighted(self, members: Sequence[Regression]) -> Sequence[Tensor]:
        taus = midpoint_taus(self.q.shape[-1], self.q.device, self.q.dtype)
        per_level = self.per_level(members[0].kappa, members[0].clip, taus)
        if len(members) == 1 and members[0].weighs_alike:
            return [per_level.mean(dim=-1)]
        weights = torch.stack([member.level_weights(taus) for member in members], dim=-1)
        return (per_level @ (weights / len(taus))).unbind(dim=-1)

    def per_level(self, kappa: float, clip: float | None, taus: Tensor) -> Tensor:
        """Eq 3 per level, [n head M]; with ``clip`` the larger of the loss at q and at the clipped step, as in PPO."""
        loss = quantile_huber_per_level(self.q, self.y, taus, kappa, targets_sorted=True)
        if clip is None or self.old is None:
            return loss
        stepped = clipped_step(self.q, self.old, clip / self.scale)
        return torch.maximum(loss, quantile_huber_per_level(stepped, self.y, taus, kappa, targets_sorted=True))


@dataclass(frozen=True)
class HeadMask(Rows):
    """The bootstrap of the heads, [batch 1 head]: 0, or 1 / p where the head learns from the trajectory."""

    factors: Tensor


class Weighted(StrictModel):
    """The one option that every term has."""

    coef: float = Field(0.1, gt=0.0, description="Weight of the term in the critic's loss; leave the term out for 0.")


class CriticTerm(Component):
    """One summand of the critic's loss. Override :meth:`__call__`, or :meth:`rows_loss` where it is not of tokens."""

    class Config(Weighted):
        """The one option that every term has."""

    name: str = ""
    """Under which it is reported, as ``critic/NAME`` and ``critic/NAME_weighted``; empty: not at all."""
    in_units_of_scale: bool = True
    """Whether it reads q, y and old, so that the running scale has to be kept."""
    needs_old_values: bool = False
    """Whether it reads the old critic's values."""
    needs_end_values: bool = False
    """Whether it reads ``CriticOutput.end_values``, in training too."""
    needs_contrast: bool = False
    """Whether it also has a loss of responses put behind other prompts, :meth:`contrast_loss`."""
    needs_layout: bool = False
    """Whether it reads quantiles as [batch seq head M], so that the model must not pack them."""
    shares: tuple[float | None, float | None] = (None, None)
    """Lower and upper tail share that it cuts."""

    def bind(self, critic: CriticConfig) -> None:
        """Take notice of the critic's shape. Called once, after :meth:`misfit` found nothing."""

    def misfit(self, critic: CriticConfig) -> str:
        """Why it cannot work with this critic, as the end of a sentence that starts with its name; empty if it can."""
        return ""

    def prepare(self, view: BatchView, world: Collective) -> tuple[Rows | None, Metrics]:
        """Look at the whole batch once, before the optimiser's steps: what to carry to the loss, and metrics."""
        return None, {}

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Further arguments of the critic's forward pass in training; see ``Algorithm.critic_inputs``."""
        return {}

    def parts(self, view: TokenView) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each named part; one part unless overridden."""
        return {self.name: (self.config.coef, self(view))}

    def __call__(self, view: TokenView) -> Tensor:
        """The loss of each token: of each head, [n head], of which the mean is taken, or already one number, [n]."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of tokens")

    def metrics(self, view: TokenView) -> Metrics:
        """What it says beside the value of its parts."""
        return {}

    def rows_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput | None:
        """This micro-batch's share of a loss that is not a sum over sampled tokens, weight included; or None."""
        return None

    def contrast_loss(self, output: CriticOutput, batch: TrainBatch, counts: Denominators) -> LossOutput:
        """The loss of responses behind other prompts (:mod:`learner.update.contrast`), weight included."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of mismatched responses")

    def compile_into(self, form: dict[str, Any]) -> bool:
        """Enter the term into the arguments of the compiled pass; False where that cannot compute it."""
        return False


class Regression(CriticTerm):
    """A term that weighs the levels of a quantile regression."""

    kappa: float
    clip: float | None
    weighs_alike: bool = True

    @abstractmethod
    def level_weights(self, taus: Tensor) -> Tensor:
        """Weights of the levels, [M] with mean 1."""


def term_metrics(terms: Mapping[str, tuple[float, float]], count: int) -> Metrics:
    """Each term's mean over tokens, and times its weight. terms: name -> weight and sum over ``count`` tokens."""
    metrics: Metrics = {}
    for name, (coef, raw) in terms.items():
        metrics[f"critic/{name}"] = Mean(raw, float(count))
        metrics[f"critic/{name}_weighted"] = Mean(coef * raw, float(count))
    return metrics

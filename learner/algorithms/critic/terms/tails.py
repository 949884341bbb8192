"""Terms that shape the tails and the mean of a quantile critic: Eq 5 to 9 of 2512.03847 in our forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.terms.base import BatchView, CriticTerm, TokenView, Weighted
from learner.algorithms.records import Rows
from learner.maths.collective import Collective
from learner.maths.losses import tail
from learner.maths.quantiles.quantiles import quantile_mean
from learner.metrics import Metrics
from learner.models.spec import CriticConfig

_SHARE = Field(0.1, gt=0.0, lt=0.5, description="Share of the tail, rounded to whole quantiles.")
_LOWER = Field(0.1, gt=0.0, lt=0.5, description="Share of the lower tail, rounded to whole quantiles.")
_UPPER = Field(0.1, gt=0.0, lt=0.5, description="Share of the upper tail, rounded to whole quantiles.")


class TailTerm(CriticTerm):
    """A term of tail sets, I_lo = {i: tau_i <= share} and mirrored above; they assume sorted quantiles."""

    need: int = 1
    """Fewest quantiles in each tail that it uses."""

    @property
    def options(self) -> dict[str, float | None]:
        """Names and values of the options that are tail shares: of the lower and of the upper tail."""
        return {"lower_share": self.config.lower_share, "upper_share": self.config.upper_share}

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        if critic.monotonicity == "none":
            return "needs sorted quantiles, and critic.monotonicity is 'none' (use 'sort' or 'cumsum')"
        try:
            for name, share in self.options.items():
                if share is not None:
                    tail.check_tail_share(critic.num_quantiles, share, self.need, name)
        except ValueError as error:
            return f"does not fit: {error}"
        return ""

    def bind(self, critic: CriticConfig) -> None:
        """Round the shares, so that tail means and what they are calibrated to are of the same share (our choice)."""
        rounded = [None if s is None else whole_share(s, critic.num_quantiles) for s in self.options.values()]
        self.shares = (rounded[0], rounded[1])

    def enter_shares(self, form: dict[str, Any]) -> bool:
        """Whether the compiled pass, which knows one share for each side, can take these."""
        sides = zip(("alpha", "beta"), self.shares, strict=True)
        return all(share is None or form.setdefault(name, share) == share for name, share in sides)


class _TailCalibration(TailTerm):
    side: tail.Side

    class Config(Weighted):
        """Options of a calibrated tail mean."""

        share: float = _SHARE
        form: tail.Calibration = Field("ru", description="Rockafellar-Uryasev, or the targets' own tail.")
        sides: tail.TailSides = Field("two_sided", description="'one_sided' only pushes the tail mean up.")

    def __call__(self, view: TokenView) -> Tensor:
        """See :func:`learner.maths.losses.tail.tail_calibration`."""
        c = self.config
        lower, upper = self.shares
        share = lower if self.side == "lower" else upper
        assert share is not None
        return tail.tail_calibration(view.tails(lower, upper), view.y, share, self.side, c.form, c.sides)

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form["coef"][self.name] = self.config.coef
        same = form.setdefault("sides", self.config.sides) == self.config.sides
        return same and self.config.form == "ru" and self.enter_shares(form)


class LowerCVaR(_TailCalibration):
    """Eq 5: the mean of the lower tail is calibrated to the CVaR of the targets."""

    name = "lower_cvar"
    side: tail.Side = "lower"

    @property
    def options(self) -> dict[str, float | None]:
        """See :class:`TailTerm`."""
        return {"share": self.config.share, "-": None}


class UpperGain(_TailCalibration):
    """Eq 6: the mean of the upper tail is calibrated to that of the targets."""

    name = "upper_gain"
    side: tail.Side = "upper"

    @property
    def options(self) -> dict[str, float | None]:
        """See :class:`TailTerm`."""
        return {"-": None, "share": self.config.share}


@dataclass(frozen=True)
class ShiftGate(Rows):
    """Whether the batch hinge is open, [batch]: 1 or 0 in every row."""

    gate: Tensor


class MeanShift(CriticTerm):
    """Eq 7: the mean of the distribution is drawn to that of the targets.

    The batch hinge ``max(0, mean_batch Y - mean_batch q)`` is linear with a gate that is found once per batch, from the
    old critic, so that it does not depend on how the batch is split (our choice).
    """

    name = "mean_shift"

    class Config(Weighted):
        """Options of the mean shift."""

        form: Literal["squared", "hinge", "batch_hinge"] = Field("squared", description="Form of the penalty.")

    def prepare(self, view: BatchView, world: Collective) -> tuple[Rows | None, Metrics]:
        """Decide the batch hinge."""
        if self.config.form != "batch_hinge":
            return None, {}
        gap = world.gather((view.target_means - view.value_means)[view.batch.action_mask])
        is_open = float(gap.numel() > 0 and float(gap.mean()) > 0.0)
        return ShiftGate(torch.full_like(view.batch.scores, is_open)), {}

    def __call__(self, view: TokenView) -> Tensor:
        """See :class:`CriticTerm`."""
        q = view.tails()
        if self.config.form == "batch_hinge":
            return view.carried(self, ShiftGate).gate[:, None] * (quantile_mean(view.y) - q.mean)
        return tail.mean_shift(q, view.y, self.config.form)

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form["coef"][self.name] = self.config.coef
        form["shift_form"] = self.config.form
        return bool(self.config.form != "batch_hinge")


class TailShape(TailTerm):
    """Eq 8: contracts the variance of the lower tail and expands that of the upper one."""

    name = "tail_shape"
    need = 2

    class Config(Weighted):
        """Options of the tails' shape."""

        coef: float = Field(0.05, gt=0.0, description="Weight of the term in the critic's loss.")
        lower_share: float = _LOWER
        upper_share: float = _UPPER
        reference: Literal["iqr", "old", "target"] = Field("iqr", description="What tail variances compare with.")
        contract: float = Field(0.8, ge=0.0, description="c_lo, factor of the lower reference.")
        expand: float = Field(1.2, ge=0.0, description="c_up, factor of the upper reference.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.needs_old_values = config.reference == "old"

    def __call__(self, view: TokenView) -> Tensor:
        """See :func:`learner.maths.losses.tail.tail_shape`."""
        lower, upper = self.shares
        assert lower is not None and upper is not None
        cut = view.tails(lower, upper)
        low, high = self._references(cut, view, lower, upper)
        return tail.tail_shape(cut, low, high, lower, upper, self.config.contract, self.config.expand)

    def _references(self, cut: tail.Tails, view: TokenView, lower: float, upper: float) -> tuple[Tensor, Tensor]:
        """Reference variances of the two tails."""
        if self.config.reference == "iqr":
            return tail.iqr_reference(cut, lower, "lower"), tail.iqr_reference(cut, upper, "upper")
        if self.config.reference == "target":
            return tail.atom_tail_variance(view.y, lower, "lower"), tail.atom_tail_variance(view.y, upper, "upper")
        if view.old is None:
            raise ValueError("tail_shape with reference 'old' needs the old critic's values")
        before = view.old.mean(dim=-2, keepdim=True)
        return tail.tail_variance(before, lower, "lower"), tail.tail_variance(before, upper, "upper")

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form["coef"][self.name] = self.config.coef
        form |= {"contract": self.config.contract, "expand": self.config.expand}
        return self.config.reference == "iqr" and self.enter_shares(form)


class TailCurvature(TailTerm):
    """Eq 9: penalises curvature of the quantile function in its tails."""

    name = "tail_curvature"
    need = 3

    class Config(Weighted):
        """Options of the tails' curvature."""

        coef: float = Field(0.01, gt=0.0, description="Weight of the term in the critic's loss.")
        lower_share: float = _LOWER
        upper_share: float = _UPPER
        form: tail.CurvatureForm = Field(
            "blocks", description="Which curvatures are penalised; all but blocks grow with the number of quantiles."
        )
        min_iqr: float = Field(
            1.0,
            gt=0.0,
            description="Least interquartile range divided by, in units of s (a distribution that is nearly a point).",
        )

    def __call__(self, view: TokenView) -> Tensor:
        """See :func:`learner.maths.losses.tail.tail_curvature`."""
        lower, upper = self.shares
        assert lower is not None and upper is not None
        return tail.tail_curvature(view.tails(lower, upper), lower, upper, self.config.form, self.config.min_iqr)

    def compile_into(self, form: dict[str, Any]) -> bool:
        """See :class:`CriticTerm`."""
        form["coef"][self.name] = self.config.coef
        form |= {"curvature_form": self.config.form, "min_iqr": self.config.min_iqr}
        return self.config.form != "blocks" and self.enter_shares(form)


def whole_share(share: float, num_quantiles: int) -> float:
    """The tail share rounded to whole quantiles; as it is where no level lies in it."""
    count = tail.tail_count_of(num_quantiles, share)
    return count / num_quantiles if count else share

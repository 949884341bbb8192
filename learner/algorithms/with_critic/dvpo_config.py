"""Options of DVPO."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from learner.algorithms.actor_critic import ActorCriticConfig
from learner.maths.losses import tail
from learner.models.spec import CriticConfig


class DVPOConfig(ActorCriticConfig):
    """Options of DVPO; the defaults are the preset 'sound'. Losses are in units of the running scale s."""

    dual_clip: float | None = Field(3.0, gt=1.0, description="Largest ratio paid for a negative advantage; or null.")
    critic: CriticConfig = Field(CriticConfig(), description="Shape of the critic's head.")
    target_mode: Literal["mixture", "quantile_wise", "mc"] = Field(
        "mixture",
        description="Atoms of the return: mixture of laws, quantile-wise GAE (literal), or the sampled return.",
    )
    huber_kappa: float = Field(0.05, ge=0.0, description="Huber threshold in units of s; 0 is the pinball loss.")
    adv_aggregate: Literal["mean", "trimmed", "spectral", "cvar_blend"] = Field(
        "mean", description="Read-out of the quantiles that the advantage uses."
    )
    trim_low: float = Field(0.1, ge=0.0, lt=1.0, description="trimmed: share of the mass dropped below.")
    trim_high: float = Field(0.1, ge=0.0, lt=1.0, description="trimmed: share of the mass dropped above.")
    spectral_eta: float = Field(1.0, description="spectral: weights ~ exp(-eta * tau); positive is averse to risk.")
    blend_lower: float = Field(0.1, ge=0.0, le=1.0, description="cvar_blend: weight of the lower CVaR.")
    blend_upper: float = Field(0.1, ge=0.0, le=1.0, description="cvar_blend: weight of the upper CVaR.")
    alpha: float = Field(0.1, gt=0.0, lt=0.5, description="Share of the lower tail.")
    beta: float = Field(0.1, gt=0.0, lt=0.5, description="Share of the upper tail.")
    risk_coef: float = Field(0.1, ge=0.0, description="Weight of Eq 4, risk-weighted quantile regression; 0 is off.")
    risk_eta: float = Field(1.0, description="Eq 4: weights ~ exp(-eta * tau).")
    risk_direction: Literal["lower", "upper"] = Field("lower", description="Eq 4: the quantiles that weigh more.")
    cvar_coef: float = Field(0.1, ge=0.0, description="Weight of Eq 5, lower-tail calibration; 0 is off.")
    gain_coef: float = Field(0.1, ge=0.0, description="Weight of Eq 6, upper-tail gain; 0 is off.")
    calibration: tail.Calibration = Field(
        "ru", description="Eq 5 and 6: Rockafellar-Uryasev, or the targets' own tail."
    )
    tail_sides: tail.TailSides = Field("two_sided", description="Eq 5 and 6: one_sided only pushes tails up.")
    shift_coef: float = Field(0.1, ge=0.0, description="Weight of Eq 7, mean shift; 0 is off.")
    shift_form: Literal["squared", "hinge", "batch_hinge"] = Field("squared", description="Eq 7: form of the penalty.")
    shape_coef: float = Field(0.05, ge=0.0, description="Weight of Eq 8, tail shape; 0 is off.")
    shape_ref: Literal["iqr", "old", "target"] = Field("iqr", description="Eq 8: what tail variances compare with.")
    shape_contract: float = Field(0.8, ge=0.0, description="Eq 8: c_lo, factor of the lower reference.")
    shape_expand: float = Field(1.2, ge=0.0, description="Eq 8: c_up, factor of the upper reference.")
    curvature_coef: float = Field(0.01, ge=0.0, description="Weight of Eq 9, tail curvature; 0 is off.")
    curvature_form: tail.CurvatureForm = Field("asymmetric", description="Eq 9: which curvatures are penalised.")
    curvature_min_iqr: float = Field(
        0.05,
        gt=0.0,
        description="Eq 9: least interquartile range divided by, in units of s (a law that is nearly a point).",
    )
    consistency_coef: float = Field(0.1, ge=0.0, description="Weight of Eq 10, agreement of the heads; 0 is off.")
    head_bootstrap_p: float | None = Field(
        None, gt=0.0, lt=1.0, description="Chance that a head learns from a trajectory (keeps heads diverse); or null."
    )
    scale_decay: float = Field(0.99, ge=0.0, lt=1.0, description="Decay of the running scale s, per update.")
    scale_floor: float = Field(1e-3, gt=0.0, description="Least running scale s, in reward units.")

    @model_validator(mode="after")
    def _tails_exist(self) -> DVPOConfig:
        m = self.critic.num_quantiles
        need = 3 if self.curvature_coef else 2 if self.shape_coef else 1
        for name, share, coef in (("alpha", self.alpha, self.cvar_coef), ("beta", self.beta, self.gain_coef)):
            if coef or self.shape_coef or self.curvature_coef:
                tail.check_tail_share(m, share, need, name)
        if self.adv_aggregate == "cvar_blend":
            tail.check_tail_share(m, self.alpha, 1, "alpha")
            tail.check_tail_share(m, self.beta, 1, "beta")
        if self.critic.monotonicity == "none" and self._uses_order:
            raise ValueError(
                "critic.monotonicity 'none' leaves quantiles unsorted: set cvar_coef, gain_coef, shape_coef "
                "and curvature_coef to 0, or use 'sort' or 'cumsum'"
            )
        if self.trim_low + self.trim_high >= 1.0:
            raise ValueError(f"trim_low + trim_high must be below 1, got {self.trim_low} + {self.trim_high}")
        if self.blend_lower + self.blend_upper > 1.0:
            raise ValueError(
                f"blend_lower + blend_upper must not exceed 1, got {self.blend_lower} + {self.blend_upper}"
            )
        return self

    @property
    def _uses_order(self) -> bool:
        return any((self.cvar_coef, self.gain_coef, self.shape_coef, self.curvature_coef))

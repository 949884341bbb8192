"""DVPO: PPO whose critic is an ensemble of quantile functions with shaped tails."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import Field

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.critic.config import ActorCriticConfig
from learner.algorithms.critic.short_keys import Anywhere, Choice, Coef, Inside, Option, ShortKey
from rollout.component import ComponentSpec

TARGET_KEYS: dict[str, ShortKey] = {
    "target_mode": Choice("target", {"mixture": "mixture", "quantile_wise": "quantile_wise", "mc": "monte_carlo"}),
    "lam_critic": Option("target", {"mixture": "lam", "quantile_wise": "lam", "lambda_return": "lam"}),
}
READOUT_KEYS: dict[str, ShortKey] = {
    "adv_aggregate": Choice("readout", {name: name for name in ("mean", "trimmed", "spectral", "cvar_blend")}),
    "trim_low": Option("readout", {"trimmed": "low"}),
    "trim_high": Option("readout", {"trimmed": "high"}),
    "spectral_eta": Option("readout", {"spectral": "eta"}),
    "blend_lower": Option("readout", {"cvar_blend": "lower"}),
    "blend_upper": Option("readout", {"cvar_blend": "upper"}),
}
TAIL_KEYS: dict[str, ShortKey] = {
    "cvar_coef": Coef("lower_cvar"),
    "gain_coef": Coef("upper_gain"),
    "shift_coef": Coef("mean_shift"),
    "shape_coef": Coef("tail_shape"),
    "curvature_coef": Coef("tail_curvature"),
    "consistency_coef": Coef("head_consistency"),
    "alpha": Anywhere(
        (
            Inside({"lower_cvar": "share", "tail_shape": "lower_share", "tail_curvature": "lower_share"}),
            Option("readout", {"cvar_blend": "lower_share"}),
        )
    ),
    "beta": Anywhere(
        (
            Inside({"upper_gain": "share", "tail_shape": "upper_share", "tail_curvature": "upper_share"}),
            Option("readout", {"cvar_blend": "upper_share"}),
        )
    ),
    "calibration": Inside({"lower_cvar": "form", "upper_gain": "form"}),
    "tail_sides": Inside({"lower_cvar": "sides", "upper_gain": "sides"}),
    "shift_form": Inside({"mean_shift": "form"}),
    "shape_ref": Inside({"tail_shape": "reference"}),
    "shape_contract": Inside({"tail_shape": "contract"}),
    "shape_expand": Inside({"tail_shape": "expand"}),
    "curvature_form": Inside({"tail_curvature": "form"}),
    "curvature_min_iqr": Inside({"tail_curvature": "min_iqr"}),
}
REGRESSION_KEYS: dict[str, ShortKey] = {
    "huber_kappa": Inside({"quantile_huber": "kappa", "risk_huber": "kappa"}),
    "value_clip": Inside({"quantile_huber": "clip", "risk_huber": "clip"}),
    "risk_coef": Coef("risk_huber"),
    "risk_eta": Inside({"risk_huber": "eta"}),
    "risk_direction": Inside({"risk_huber": "direction"}),
}
DVPO_KEYS: dict[str, ShortKey] = TARGET_KEYS | READOUT_KEYS | TAIL_KEYS | REGRESSION_KEYS
EQUATIONS = (
    "quantile_huber",
    "risk_huber",
    "lower_cvar",
    "upper_gain",
    "mean_shift",
    "tail_shape",
    "tail_curvature",
    "head_consistency",
)
"""Terms of Eq 3 to 10, in their order."""


class DVPOConfig(ActorCriticConfig):
    """Options of DVPO; the defaults are the preset 'sound'. Losses are in units of the running scale s."""

    dual_clip: float | None = Field(3.0, gt=1.0, description="Largest ratio paid for a negative advantage; or null.")
    target: ComponentSpec = Field(
        ComponentSpec(type="mixture"), description="What the critic regresses to, and the advantage's form."
    )
    terms: tuple[ComponentSpec, ...] = Field(
        tuple(ComponentSpec(type=name) for name in EQUATIONS if name != "tail_curvature"),
        min_length=1,
        description="Summands of the critic's loss, in order; each has a 'type' and a 'coef'.",
    )


class DVPO(ActorCritic):
    """Distributional value modelling PO (2512.03847), Eq 2 to 11; formulas are our forms of its components.

    The advantage is the exact scalar GAE of a linear read-out of the ensemble's quantiles (F1), so with the mean it is
    PPO's for V = mean quantile, and robustness enters through how the quantiles are learned: quantile Huber regression
    (Eq 3) of every head to the same detached ensemble targets (Eq 2), plus risk weights (Eq 4), tail calibration (Eq 5,
    6), mean shift (Eq 7), tail shape (Eq 8) and head consistency (Eq 10), each with a weight. Tail curvature (Eq 9) is
    left out: as it is written it drowns Eq 3 at the paper's own 200 quantiles (``curvature_coef`` puts it in).
    """

    Config = DVPOConfig
    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = DVPO_KEYS

    @classmethod
    def expand(cls, options: Mapping[str, Any], written: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """One head has no other to agree with, so the preset's term for that is left out."""
        critic = options.get("critic")
        if isinstance(critic, Mapping) and critic.get("num_heads") == 1:
            options = dict(options) if "consistency_coef" in written else {**options, "consistency_coef": 0.0}
        return super().expand(options, written)

"""Algorithms and presets by name. Importing this file loads no torch; :func:`build_algorithm` does.

An *algorithm* is a class; a *preset* is an algorithm with the options of a published method. Both are plain strings
here, so every process resolves a name by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rollout.component import ComponentSpec, UserError, build, nearest

if TYPE_CHECKING:
    from learner.algorithms.base import Algorithm

ALGORITHMS: dict[str, str] = {
    "ppo": "learner.algorithms.ppo:PPO",
    "grpo": "learner.algorithms.grpo:GRPO",
    "dvpo": "learner.algorithms.dvpo:DVPO",
}
"""Type name -> ``module:Class``."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A whole method under one name.

    Attributes:
        type: a key of :data:`ALGORITHMS`.
        options: options that differ from that type's defaults.
        summary: what it is, in one sentence.
        source: where its formulas come from.
    """

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    source: str = ""


PRESETS: dict[str, Preset] = {
    "ppo": Preset(
        "ppo",
        {},
        "PPO-clip with GAE over a scalar critic whose step is clipped.",
        "arXiv 1707.06347, 1506.02438; separate lambdas 2503.01491",
    ),
    "grpo": Preset(
        "grpo",
        {},
        "No critic: rewards are normalised within the group of samples of one prompt.",
        "arXiv 2402.03300 Eq 3",
    ),
    "dvpo": Preset(
        "dvpo",
        {},
        "PPO with an ensemble of quantile critics whose lower tail is contracted and upper tail kept (form 'sound').",
        "arXiv 2512.03847; forms of Eq 2 and 5 to 9 are ours",
    ),
    "dvpo-literal": Preset(
        "dvpo",
        {
            "target_mode": "quantile_wise",
            "huber_kappa": 1.0,
            "risk_coef": 0.1,
            "cvar_coef": 1.0,
            "gain_coef": 1.0,
            "calibration": "target_tail",
            "shift_coef": 1.0,
            "shift_form": "hinge",
            "shape_coef": 1.0,
            "shape_ref": "target",
            "shape_contract": 1.0,
            "shape_expand": 1.0,
            "curvature_coef": 1.0,
            "curvature_form": "unimodal",
            "consistency_coef": 1.0,
        },
        "DVPO as a literal reading of the paper's equations, with unit weights; contracts the whole distribution.",
        "arXiv 2512.03847, a public re-reading of Eq 2 to 11",
    ),
}
"""Preset name -> what it stands for."""


def build_algorithm(name: str, options: Mapping[str, Any] | None = None, where: str = "algorithm") -> Algorithm:
    """Validate options and construct an algorithm.

    Args:
        name: a preset, a type, or ``package.module:Class``. Where a preset and a type share a name it is the preset.
        options: override the preset's, key by key, also inside nested mappings.
        where: the place in the configuration, for messages.

    Raises:
        UserError: no such name, or an option that does not fit; the message names the option's path.
    """
    preset = PRESETS.get(name)
    if preset is None and name not in ALGORITHMS and ":" not in name:
        valid = {**ALGORITHMS, **PRESETS}
        raise UserError(f"{where}: unknown algorithm {name!r}; {nearest(name, valid)}, or 'package.module:Class'")
    kind, defaults = (preset.type, preset.options) if preset else (name, {})
    from learner.algorithms.base import Algorithm

    merged = merge_options(defaults, options or {})
    if "type" in merged:
        raise UserError(f"{where}.type: given twice, as {name!r} and as {merged['type']!r}")
    algorithm: Algorithm = build(ComponentSpec(type=kind, **merged), ALGORITHMS, Algorithm, where)
    return algorithm


def merge_options(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` with ``overrides`` on top; two mappings under one key are merged in the same way."""
    merged = dict(defaults)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = merge_options(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged

"""Algorithms and presets by name. Importing this file loads no torch; :func:`build_algorithm` does.

An *algorithm* is a class; a *preset* is an algorithm with the options of a published method. Both are plain strings
here, so every process resolves a name by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from learner.algorithms.presets import PRESETS
from rollout.component import ComponentSpec, UserError, build, nearest, resolve_class
from rollout.component.mistakes import GivenTwice, UnknownName

if TYPE_CHECKING:
    from learner.algorithms.base import Algorithm

ALGORITHMS: dict[str, str] = {
    "ppo": "learner.algorithms.with_critic.ppo:PPO",
    "grpo": "learner.algorithms.without_critic.grpo:GRPO",
    "asyppo": "learner.algorithms.with_critic.asyppo:AsymmetricPPO",
    "dvpo": "learner.algorithms.with_critic.dvpo:DVPO",
    "dr_grpo": "learner.algorithms.without_critic.dr_grpo:DrGRPO",
    "rloo": "learner.algorithms.without_critic.rloo:RLOO",
    "qae": "learner.algorithms.without_critic.qae:QAE",
    "reinforce_pp": "learner.algorithms.without_critic.reinforce_pp:ReinforcePP",
    "reinforce_pp_baseline": "learner.algorithms.without_critic.reinforce_pp:ReinforcePPBaseline",
    "robust_bellman": "learner.algorithms.with_critic.robust_bellman:RobustBellman",
    "cql": "learner.algorithms.with_critic.cql:CQL",
    "vrpo": "learner.algorithms.with_critic.vrpo:VRPO",
    "vrpo_dvpo": "learner.algorithms.with_critic.vrpo:VRPODVPO",
    "nc_grpo": "learner.algorithms.without_critic.nc_grpo:NoiseCorrectedGRPO",
    "s_grpo": "learner.algorithms.without_critic.s_grpo:StableGRPO",
    "james_stein": "learner.algorithms.without_critic.james_stein:JamesStein",
    "spo": "learner.algorithms.without_critic.spo:SinglestreamPO",
    "reinforce": "learner.algorithms.without_critic.reinforce:Reinforce",
    "recap": "learner.algorithms.without_critic.recap:Recap",
    "decoupled_vpo": "learner.algorithms.with_critic.decoupled_vpo:DecoupledVPO",
    "actor_critic": "learner.algorithms.actor_critic:ActorCritic",
    "dist_rlvr": "learner.algorithms.with_critic.dist_rlvr:DistRLVR",
    "dfpo": "learner.algorithms.with_critic.dfpo:DFPO",
}
"""Type name -> ``module:Class``."""


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
        raise UnknownName(f"{where}: unknown algorithm {name!r}; {nearest(name, valid)}, or 'package.module:Class'")
    kind, defaults = (preset.type, preset.options) if preset else (name, {})
    from learner.algorithms.base import Algorithm, NoEffect

    merged = merge_options(defaults, options or {})
    if "type" in merged:
        raise GivenTwice(f"{where}.type: given twice, as {name!r} and as {merged['type']!r}")
    found = resolve_class(ComponentSpec(type=kind), ALGORITHMS, Algorithm, where)
    written = set(options or {})
    expanded, origins = found.expand(merged, written)
    while True:
        try:
            algorithm: Algorithm = build(ComponentSpec(type=kind, **expanded), ALGORITHMS, Algorithm, where)
            return algorithm
        except NoEffect as error:
            if error.option in written or error.option not in expanded:
                raise
            del expanded[error.option]  # the preset's own, idle beside what the user wrote: no mistake of the user's
        except UserError as error:
            raise UserError(_as_written(str(error), origins)) from error


def _as_written(message: str, origins: Mapping[str, str]) -> str:
    """A message with the paths under which the user wrote the options."""
    for path, written in origins.items():
        message = message.replace(f"{path}:", f"{written}:")
    return message


def merge_options(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` with ``overrides`` on top; two mappings under one key are merged in the same way."""
    merged = dict(defaults)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = merge_options(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged

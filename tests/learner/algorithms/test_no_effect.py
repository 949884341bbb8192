"""An option that nothing reads is refused, with its right place; a default that is spelled out is not."""

from __future__ import annotations

from typing import Any

import pytest

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.presets import PRESETS
from rollout.component import UserError

IDLE: list[tuple[str, dict[str, Any], str]] = [
    ("dvpo", {"trim_low": 0.3}, "read-out 'mean'"),
    ("dvpo", {"spectral_eta": 2.0}, "option of readout spectral (eta)"),
    ("dvpo", {"blend_upper": 0.3}, "option of readout cvar_blend (upper)"),
    ("dvpo", {"adv_aggregate": "trimmed", "spectral_eta": 2.0}, "readout 'trimmed'"),
    ("dvpo", {"target_mode": "mc", "lam_critic": 0.5}, "target 'monte_carlo'"),
    ("dvpo", {"risk_coef": 0.0, "risk_eta": 3.0}, "option of terms risk_huber (eta)"),
    ("dvpo", {"cvar_coef": 0.0, "gain_coef": 0.0, "calibration": "target_tail"}, "lower_cvar (form)"),
    ("dvpo", {"shift_coef": 0.0, "shift_form": "hinge"}, "mean_shift (form)"),
    ("dvpo", {"shape_coef": 0.0, "shape_ref": "old"}, "tail_shape (reference)"),
    ("dvpo", {"curvature_min_iqr": 0.2}, "tail_curvature (min_iqr)"),
    ("dvpo", {"critic": {"num_heads": 1}, "consistency_coef": 0.3}, "critic.num_heads is 1"),
    ("dvpo", {"lam_actor": 0.5, "lam_actor_alpha": 0.1}, "beside lam_actor_alpha"),
    ("dfpo", {"huber_kappa": 0.5}, "no quantile regression"),
    ("ppo", {"scale_decay": 0.5}, "no term is in units of the running scale"),
    ("ppo", {"kl_mode": "reward"}, "with kl_coef 0"),
    ("ppo", {"kl_loss": "k2"}, "without a KL penalty in the loss"),
    ("ppo", {"kl_coef": 0.1, "kl_mode": "reward", "kl_loss": "k2"}, "without a KL penalty in the loss"),
    ("grpo", {"entropy_switch_frac": 0.5}, "without entropy_coef_late"),
    ("grpo", {"policy_objective": "bapo", "clip_ratio_low": 0.1}, "with policy_objective 'bapo'"),
    ("ppo", {"policy_objective": "apa", "dual_clip": 5.0}, "with policy_objective 'apa'"),
    ("recap", {"replay_frac": 0.0, "replay_capacity": 8}, "with replay_frac 0"),
    ("robust-bellman", {"rho": 0.3}, "target 'robust_min_heads'"),
    ("robust-bellman", {"alpha": 0.5}, "option of target robust_cvar (alpha)"),
    ("robust-bellman-cvar", {"value_clip": 0.5}, "option of terms squared (clip)"),
    ("robust-bellman", {"huber_kappa": 0.5}, "option of terms point_huber (kappa)"),
    ("cql-asym", {"contrast_coef": 0.0, "max_value": 2.0}, "contrast (max_value)"),
    ("vrpo-kl", {"ent_coef": 0.5}, "semantic (entropy_coef)"),
    ("vrpo", {"ib": False, "ib_dim": 64}, "bottleneck (dim)"),
    ("vrpo", {"sem_mode": "none", "sem_share": 0.5}, "semantic (share)"),
    ("decoupled-vpo", {"bootstrap_truncated": True}, "with target 'after_token'"),
]


@pytest.mark.parametrize(("name", "options", "why"), IDLE, ids=lambda value: str(value)[:60])
def test_an_option_without_effect_is_refused_where_it_is_written(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert why.replace("read-out", "readout") in str(caught.value)
    assert "algorithm." in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dvpo", {"trim_low": 0.1, "spectral_eta": 1.0, "blend_lower": 0.1}),
        ("dvpo", {"target_mode": "mc", "lam_critic": 0.95}),
        ("robust-bellman", {"rho": 0.1, "alpha": 0.3, "huber_kappa": 0.05}),
        ("robust-bellman-kl", {"value_clip": 0.2}),
        ("vrpo-kl", {"ent_coef": 0.01, "max_nll": 10.0}),
        ("dfpo", {"risk_coef": 0.0, "risk_eta": 1.0, "value_clip": None}),
        ("ppo", {"kl_mode": "loss", "kl_loss": "k3", "entropy_switch_frac": 0.8}),
    ],
)
def test_defaults_may_be_spelled_out(name: str, options: dict[str, Any]) -> None:
    build_algorithm(name, options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ppo-max", {"kl_coef": 0.0}),
        ("dvpo-literal", {"shift_coef": 0.0, "shape_coef": 0.0, "curvature_coef": 0.0}),
        ("dvpo-literal", {"critic": {"num_heads": 1}}),
        ("recap", {"kl_coef": 0.0}),
        ("reinforce-pp-baseline", {"kl_coef": 0.0}),
        ("cql-contrast", {"contrast_coef": 0.0}),
    ],
)
def test_what_only_the_preset_says_is_no_mistake_of_the_users(name: str, options: dict[str, Any]) -> None:
    build_algorithm(name, options)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_spelled_out(name: str) -> None:
    """Every option of its class at the value that the preset gives it."""
    algorithm = build_algorithm(name)
    again = build_algorithm(PRESETS[name].type, algorithm.config.model_dump(mode="json"))
    assert again.config == algorithm.config

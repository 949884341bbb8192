"""Algorithms, presets and their options by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from learner.algorithms.catalogue import ALGORITHMS, build_algorithm, merge_options
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.presets import PRESETS
from learner.algorithms.with_critic.dvpo import DVPO
from rollout.component import UserError, import_object


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_says_what_it_is(name: str) -> None:
    algorithm = build_algorithm(name)
    assert PRESETS[name].type in ALGORITHMS
    assert PRESETS[name].summary.endswith(".")
    assert "arXiv" in PRESETS[name].source
    assert (algorithm.critic_config is not None) == algorithm.needs_critic
    described = type(algorithm).Config.model_json_schema()["properties"]
    assert [key for key, value in described.items() if not value.get("description")] == []


@pytest.mark.parametrize("path", [*ALGORITHMS.values(), *CORRECTIONS.values()])
def test_every_name_can_be_imported(path: str) -> None:
    assert isinstance(import_object(path, "test"), type)


def test_the_table_of_method_3_4() -> None:
    """What distinguishes the two presets of DVPO."""
    sound, literal = build_algorithm("dvpo").config, build_algorithm("dvpo-literal").config
    assert (sound.target_mode, literal.target_mode) == ("mixture", "quantile_wise")
    assert (sound.huber_kappa, literal.huber_kappa) == (0.05, 1.0)
    assert (sound.calibration, literal.calibration) == ("ru", "target_tail")
    assert (sound.shift_form, literal.shift_form) == ("squared", "hinge")
    assert (sound.shape_ref, literal.shape_ref) == ("iqr", "target")
    assert (sound.curvature_form, literal.curvature_form) == ("asymmetric", "unimodal")
    assert (sound.shape_contract, sound.shape_expand) == (0.8, 1.2)
    names = ("risk", "cvar", "gain", "shift", "shape", "curvature", "consistency")
    assert [getattr(sound, f"{n}_coef") for n in names] == [0.1, 0.1, 0.1, 0.1, 0.05, 0.01, 0.1]
    assert [getattr(literal, f"{n}_coef") for n in names] == [0.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for config in (sound, literal):
        assert (config.critic.num_heads, config.critic.num_quantiles) == (3, 200)
        assert (config.alpha, config.beta, config.risk_eta) == (0.1, 0.1, 1.0)
        assert (config.gamma, config.lam_actor, config.lam_critic) == (1.0, 0.95, 0.95)
        assert config.adv_aggregate == "mean"


def test_options_override_presets_also_inside() -> None:
    algorithm = build_algorithm("dvpo-literal", {"critic": {"num_quantiles": 32}, "shape_coef": 0.0, "alpha": 0.2})
    assert isinstance(algorithm, DVPO)
    assert algorithm.config.critic.num_quantiles == 32
    assert algorithm.config.critic.num_heads == 3
    assert algorithm.config.calibration == "target_tail"
    assert merge_options({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }


def test_a_class_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_algo.py").write_text(
        "from learner.algorithms.with_critic.ppo import PPO\n"
        "class MyAlgorithm(PPO):\n"
        "    class Config(PPO.Config):\n"
        "        temperature: float = 2.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    algorithm = build_algorithm("my_algo:MyAlgorithm", {"temperature": 3.0, "gamma": 0.9})
    assert (type(algorithm).__name__, algorithm.config.temperature, algorithm.config.gamma) == ("MyAlgorithm", 3.0, 0.9)
    sys.modules.pop("my_algo")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dvop", {}, "unknown algorithm 'dvop'; did you mean 'dvpo'? valid: "),
        ("dvpo", {"huber_kapa": 1}, "algorithm.huber_kapa: unknown key; did you mean 'huber_kappa'?"),
        ("ppo", {"gamma": 1.5}, "algorithm.gamma: must be less than or equal to 1 (got 1.5)"),
        ("ppo", {"critic": {"num_quantiles": 8}}, "the critic of ppo is scalar"),
        ("dvpo", {"critic": {"num_quantiles": 8}}, "alpha=0.1 holds 1 of 8 quantile levels, but at least 3 are needed"),
        ("dvpo", {"critic": {"monotonicity": "none"}}, "'none' leaves quantiles unsorted"),
        ("dvpo", {"trim_low": 0.6, "trim_high": 0.5}, "trim_low + trim_high must be below 1"),
        ("dvpo", {"blend_lower": 0.6, "blend_upper": 0.5}, "blend_lower + blend_upper must not exceed 1"),
        ("grpo", {"reward_correction": ["percentil_clip"]}, "did you mean 'percentile_clip'?"),
        ("grpo", {"reward_correction": [{"type": "mad_clip", "width": -1}]}, "algorithm.reward_correction.0.width"),
        (
            "grpo",
            {"reward_correction": [{"type": "percentile_clip", "low": 0.9, "high": 0.1}]},
            "low must be below high",
        ),
        ("grpo", {"critic": {}}, "algorithm.critic: unknown key"),
        ("nowhere:Thing", {}, "cannot import module 'nowhere'"),
        ("learner.batch:TrainBatch", {}, "is not a subclass of learner.algorithms.base.Algorithm"),
        ("ppo", {"type": "grpo"}, "given twice"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert message in str(caught.value)

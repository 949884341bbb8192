"""Algorithms, presets and their options by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from learner.algorithms.catalogue import ALGORITHMS, build_algorithm, merge_options
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.presets import PRESETS
from learner.algorithms.with_critic.dvpo import DVPO, EQUATIONS
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
    sound, literal = (build_algorithm(name) for name in ("dvpo", "dvpo-literal"))
    assert isinstance(sound, DVPO) and isinstance(literal, DVPO)
    assert [algorithm.config.target.type for algorithm in (sound, literal)] == ["mixture", "quantile_wise"]
    assert [algorithm.config.readout.type for algorithm in (sound, literal)] == ["mean", "mean"]
    ours, theirs = ({term.name: term.config for term in algorithm.side.terms} for algorithm in (sound, literal))
    assert tuple(theirs) == EQUATIONS
    assert tuple(ours) == tuple(name for name in EQUATIONS if name != "tail_curvature")
    assert [config.coef for config in ours.values()] == [1.0, 0.1, 0.1, 0.1, 0.1, 0.05, 0.1]
    assert [config.coef for config in theirs.values()] == [1.0, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for name in ("quantile_huber", "risk_huber"):
        assert (ours[name].kappa, theirs[name].kappa) == (0.05, 1.0)
    for name in ("lower_cvar", "upper_gain"):
        assert (ours[name].form, theirs[name].form) == ("ru", "target_tail")
        assert ours[name].share == theirs[name].share == 0.1
    assert (ours["mean_shift"].form, theirs["mean_shift"].form) == ("squared", "hinge")
    assert (ours["tail_shape"].reference, theirs["tail_shape"].reference) == ("iqr", "target")
    assert (ours["tail_shape"].contract, ours["tail_shape"].expand) == (0.8, 1.2)
    assert (theirs["tail_curvature"].form, theirs["tail_curvature"].min_iqr) == ("unimodal", 0.05)
    assert ours["risk_huber"].eta == theirs["risk_huber"].eta == 1.0
    for algorithm in (sound, literal):
        config = algorithm.config
        assert (config.critic.num_heads, config.critic.num_quantiles) == (3, 200)
        assert (config.gamma, config.lam_actor, algorithm.side.target.config.lam) == (1.0, 0.95, 0.95)


def test_options_override_presets_also_inside() -> None:
    algorithm = build_algorithm("dvpo-literal", {"critic": {"num_quantiles": 32}, "shape_coef": 0.0, "alpha": 0.2})
    assert isinstance(algorithm, DVPO)
    assert algorithm.config.critic.num_quantiles == 32
    assert algorithm.config.critic.num_heads == 3
    terms = {term.name: term.config for term in algorithm.side.terms}
    assert "tail_shape" not in terms and terms["lower_cvar"].form == "target_tail"
    assert [terms[name].share for name in ("lower_cvar", "upper_gain")] == [0.2, 0.1]
    assert (terms["tail_curvature"].lower_share, terms["tail_curvature"].upper_share) == (0.2, 0.1)
    assert merge_options({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }


def test_a_class_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_algo.py").write_text(
        "from learner.algorithms.with_critic.ppo import PPO\n"
        "class MyAlgorithm(PPO):\n"
        "    class Config(PPO.Config):\n"
        "        temperature: float = 2.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    algorithm = build_algorithm("own_algo:MyAlgorithm", {"temperature": 3.0, "gamma": 0.9})
    assert (type(algorithm).__name__, algorithm.config.temperature, algorithm.config.gamma) == ("MyAlgorithm", 3.0, 0.9)
    sys.modules.pop("own_algo")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dvop", {}, "unknown algorithm 'dvop'; did you mean 'dvpo'? valid: "),
        ("dvpo", {"huber_kapa": 1}, "algorithm.huber_kapa: unknown key; did you mean 'huber_kappa'?"),
        ("ppo", {"gamma": 1.5}, "algorithm.gamma: must be less than or equal to 1 (got 1.5)"),
        ("ppo", {"critic": {"num_quantiles": 8}}, "the critic of ppo is scalar"),
        (
            "dvpo",
            {"critic": {"num_quantiles": 8}},
            "lower_share=0.1 holds 1 of 8 quantile levels, but at least 2 are needed",
        ),
        ("dvpo", {"critic": {"monotonicity": "none"}}, "needs sorted quantiles, and critic.monotonicity is 'none'"),
        ("dvpo", {"adv_aggregate": "trimmed", "trim_low": 0.6, "trim_high": 0.5}, "low + high must be below 1"),
        (
            "dvpo",
            {"adv_aggregate": "cvar_blend", "blend_lower": 0.6, "blend_upper": 0.5},
            "lower + upper must not exceed 1",
        ),
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

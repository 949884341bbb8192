"""RunConfig: reading, defaults, writing back, and what the shipped configurations say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from cluster.config.components import build_components, resolve
from cluster.config.run_config import AlgorithmSpec, RunConfig, dump_config, load_config, parse_config
from cluster.config.yaml_source import parse_source
from rollout.component import ComponentSpec, UserError

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(set((ROOT / "configs").glob("*.yaml")) - set((ROOT / "configs").glob("study-*.yaml")))


def parse(text: str) -> RunConfig:
    return parse_config(parse_source(text, "my run.yaml"))


def test_defaults_need_only_a_model() -> None:
    config = parse("model: {path: some/model}")
    assert config.name == "my-run"  # the file's name, made fit for a folder
    assert config.run_dir == Path("runs/my-run")
    assert config.algorithm == AlgorithmSpec(preset="dvpo")
    assert (config.training.num_steps, config.training.prompts_per_step) == (500, 64)
    assert config.training.trajectories_per_step == 64 * 8
    assert (config.learner.policy_lr, config.learner.critic_lr, config.learner.zero_stage) == (1e-6, 5e-6, 2)
    assert config.reward.noise == ()


@pytest.mark.parametrize(
    ("text", "preset", "kind", "options"),
    [
        ("dvpo", "dvpo", None, {}),
        ("my_algo:Mine", None, "my_algo:Mine", {}),
        ("{preset: ppo, gamma: 0.9}", "ppo", None, {"gamma": 0.9}),
        ("{type: ppo, critic: {num_heads: 2}}", None, "ppo", {"critic": {"num_heads": 2}}),
    ],
)
def test_ways_to_name_an_algorithm(text: str, preset: str | None, kind: str | None, options: dict[str, object]) -> None:
    spec = parse(f"model: {{path: m}}\nalgorithm: {text}").algorithm
    assert (spec.preset, spec.type, spec.options) == (preset, kind, options)
    assert spec.name == (preset or kind)


def test_conflicts_are_found_however_a_config_is_made() -> None:
    good = parse("model: {path: m}").model_dump()
    good["rollout"]["sampling"]["temperature"] = 0.0
    with pytest.raises(ValidationError, match="temperature: must be above 0"):
        RunConfig.model_validate(good)


def test_several_conflicts_are_separate_lines() -> None:
    text = "model: {path: m}\ncluster: {address: auto, num_cpus: 2}\nlearner: {critic_warmup_steps: 900}"
    with pytest.raises(UserError) as caught:
        parse(text)
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        ["my run.yaml:3", "learner.critic_warmup_steps"],
        ["my run.yaml:2", "cluster.num_cpus"],
    ]


@pytest.mark.parametrize(
    ("text", "fewest", "most"),
    [
        ("", 1, 1),
        ("num_workers: 4", 4, 4),
        ("num_workers: 4, min_workers: 2", 2, 4),
        ("num_workers: 4, max_workers: 9", 4, 9),
        ("max_workers: 9", 1, 9),
    ],
)
def test_a_run_has_a_fixed_number_of_rollout_workers_unless_it_says_otherwise(
    text: str, fewest: int, most: int
) -> None:
    rollout = parse(f"model: {{path: m}}\nrollout: {{{text}}}").rollout
    assert (rollout.fewest_workers, rollout.most_workers) == (fewest, most)


def test_the_number_to_begin_with_is_between_the_fewest_and_the_most() -> None:
    with pytest.raises(UserError) as caught:
        parse("model: {path: m}\nrollout: {num_workers: 3, min_workers: 4, max_workers: 2}")
    assert str(caught.value).splitlines() == [
        "my run.yaml:2: rollout.min_workers: 4 is more than rollout.num_workers = 3, with which the run begins "
        "[config-conflict]",
        "my run.yaml:2: rollout.max_workers: 2 is less than rollout.num_workers = 3, with which the run begins "
        "[config-conflict]",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {samples_per_prompt: 1}", "training.samples_per_prompt: reward.pseudo_labels needs at least 2"),
        ("reward: {noise: [{type: symmetric_flip}]}", "reward.noise: goes with scores of reward.functions, not"),
        ("reward: {error_reward: 0.0}", "reward.error_reward: must be 'drop' with reward.pseudo_labels"),
    ],
)
def test_labels_by_vote_conflict_with_other_scores(text: str, message: str) -> None:
    given = {"model": {"path": "m"}, **yaml.safe_load(text)}
    given["reward"] = {"pseudo_labels": {"min_share": 0.5}, **given.get("reward", {})}
    with pytest.raises(UserError) as caught:
        parse(yaml.safe_dump(given))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "share"),
    [("{}", 0.0), ("{noise: [{type: a}], gold_share: 0.1}", 0.1), ("{gold: [{type: a}]}", 1.0)],
)
def test_the_share_whose_true_score_is_known(text: str, share: float) -> None:
    assert parse(f"model: {{path: m}}\nreward: {text}").reward.compared_share == share


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("'###'", ("###",)),
        ("['###', '</s>']", ("###", "</s>")),
        ('"\\n\\n"', ("\n\n",)),  # white space alone may end a response
        ("[' ', \"\\t\"]", (" ", "\t")),
        ("[]", ()),
    ],
)
def test_stop_strings_with_and_without_a_list(text: str, strings: tuple[str, ...]) -> None:
    assert parse(f"model: {{path: m}}\nrollout: {{sampling: {{stop: {text}}}}}").rollout.sampling.stop == strings


def test_the_written_configuration_is_read_back_equal(tmp_path: Path) -> None:
    text = "model: {path: m}\nalgorithm: {type: ppo, gamma: 0.9}\nreward: {functions: [{type: a, b: {c: 1e-9}}]}"
    config = parse(text)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config
    assert "preset" not in yaml.safe_load(dump_config(config))["algorithm"]


def test_overrides_apply_before_validation(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {path: m}\nalgorithm: ppo")
    flags = ["training.num_steps=7", "algorithm.gamma=0.5", "model.path=other", "learner.policy_lr=1e-4"]
    config = load_config(tmp_path / "a.yaml", flags)
    assert config.training.num_steps == 7
    assert config.algorithm == AlgorithmSpec(preset="ppo", gamma=0.5)
    assert config.model.path == "other"
    assert config.learner.policy_lr == 1e-4


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    parts = build_components(config)
    assert parts.task.name == (path.stem if path.stem in ("math", "science", "dialogue") else "chain")
    assert (parts.algorithm.critic_config is None) == (path.stem == "grpo")


def test_every_preset_but_the_demos_has_a_configuration() -> None:
    from learner.algorithms.presets import PRESETS

    shipped = {load_config(path).algorithm.preset for path in CONFIGS}
    assert {"ppo", "grpo", "dvpo", "dvpo-literal"} <= shipped <= set(PRESETS)


def test_the_demo_is_what_its_text_says() -> None:
    config = load_config(ROOT / "configs" / "demo.yaml")
    assert config.reward.noise == (ComponentSpec(type="symmetric_flip", p=0.3),)
    assert (config.rollout.num_workers, config.learner.num_workers, config.training.max_staleness) == (2, 1, 1)
    critic = build_components(config).algorithm.critic_config
    assert critic is not None and (critic.num_heads, critic.num_quantiles) == (2, 32)


def test_resolved_configuration_spells_everything_out(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "dvpo-literal.yaml")
    resolved = resolve(config)
    assert resolved.algorithm.type == "dvpo"
    assert resolved.algorithm.options["target"] == {"type": "quantile_wise", "lam": 0.95}  # of the preset
    terms = {term["type"]: term for term in resolved.algorithm.options["terms"]}
    assert (terms["lower_cvar"]["share"], terms["lower_cvar"]["coef"]) == (0.2, 1.0)  # of the file, of the preset
    assert terms["lower_cvar"]["sides"] == "two_sided"  # of the piece
    assert resolved.algorithm.options["gamma"] == 1.0  # of the class
    assert resolved.data.task.options["num_terms"] == 5
    assert resolved.reward.functions[0].options["weight"] == 1.0
    (tmp_path / "config.yaml").write_text(dump_config(resolved))
    again = load_config(tmp_path / "config.yaml")
    assert again == resolved == resolve(again)
    ours, theirs = (build_components(which).algorithm.pieces() for which in (again, config))
    assert {name: [piece.config for piece in found] for name, found in ours.items()} == {
        name: [piece.config for piece in found] for name, found in theirs.items()
    }


def test_resolved_configuration_keeps_corrections_and_custom_types(tmp_path: Path) -> None:
    text = (
        "model: {path: m}\n"
        'algorithm: {type: "learner.algorithms.with_critic.ppo:PPO", reward_correction: percentile_clip}\n'
        "data: {task: {type: chain}}"
    )
    resolved = resolve(parse(text))
    assert resolved.algorithm.type == "learner.algorithms.with_critic.ppo:PPO"
    (correction,) = resolved.algorithm.options["reward_correction"]
    assert correction["type"] == "percentile_clip" and len(correction) > 1
    (tmp_path / "config.yaml").write_text(dump_config(resolved))
    assert resolve(load_config(tmp_path / "config.yaml")) == resolved


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    below = [field.annotation for field in model.model_fields.values()]
    found = [a for a in below if isinstance(a, type) and issubclass(a, BaseModel) and a is not ComponentSpec]
    return [model, *(section for one in found for section in sections(one))]


@pytest.mark.parametrize("section", sections(RunConfig), ids=lambda section: section.__name__)
def test_every_field_has_a_sentence_and_nothing_else_is_taken(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        assert field.description and field.description.endswith((".", ")", "}")), name
    assert section.model_config.get("frozen") is True
    if section is not AlgorithmSpec:
        assert section.model_config.get("extra") == "forbid"

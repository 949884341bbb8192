"""The JSON Schema agrees with the loader: what one takes the other takes, and built-in options are spelled out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import Result

from cluster.config.schema import build_schema

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(set((ROOT / "configs").glob("*.yaml")) - set((ROOT / "configs").glob("study-*.yaml")))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return build_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def run(**sections: object) -> dict[str, object]:
    return {"model": {"path": "m"}, **sections}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "sections",
    [
        {"algorithm": "dvpo"},
        {"algorithm": "my_algo:Mine"},
        {"algorithm": {"type": "my_algo:Mine", "anything": {"goes": 1}}},
        {"algorithm": {"preset": "dvpo-literal", "huber_kappa": 0.5, "critic": {"num_heads": 2}}},
        {"algorithm": {"type": "ppo", "reward_correction": "percentile_clip"}},
        {"algorithm": {"type": "ppo", "reward_correction": [{"type": "mad_clip"}, "percentile_clip"]}},
        {"reward": {"functions": [{"type": "exact_match", "weight": 2}, {"type": "m:R", "x": 1}]}},
        {"reward": {"noise": [{"type": "symmetric_flip", "p": 0.3}]}},
        {"data": {"task": {"type": "chain", "num_terms": 4}}},
        {"data": {"task": {"type": "m:T", "anything": 1}}},
    ],
    ids=str,
)
def test_valid(sections: dict[str, object], validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(run(**sections))


@pytest.mark.parametrize(
    "sections",
    [
        {"algoritm": "dvpo"},
        {"algorithm": "dvpoo"},
        {"algorithm": {"preset": "dvpo", "huber_kapa": 0.5}},
        {"algorithm": {"preset": "dvpo", "critic": {"num_heads": 0}}},
        {"algorithm": {"type": "ppo", "reward_correction": [{"type": "mad_clipp"}]}},
        {"reward": {"functions": [{"type": "exact_mach"}]}},
        {"reward": {"functions": [{"type": "exact_match", "wait": 2}]}},
        {"reward": {"functions": []}},
        {"reward": {"noise": [{"type": "symmetric_flip", "p": 1.5}]}},
        {"data": {"task": {"type": "chain", "num_terms": 1}}},
        {"training": {"num_steps": 0}},
        {"learner": {"zero_stage": 4}},
    ],
    ids=str,
)
def test_invalid(sections: dict[str, object], validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(run(**sections))


def test_the_model_is_required_and_the_name_is_not(validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid({})
    assert validator.is_valid(run())


def test_a_preset_shows_its_own_defaults_and_options_their_sentences(schema: dict[str, Any]) -> None:
    variants = {variant.get("title"): variant for variant in schema["$defs"]["Algorithm"]["anyOf"]}
    literal = variants["dvpo-literal"]["properties"]
    assert literal["target_mode"]["default"] == "quantile_wise"
    assert literal["huber_kappa"]["default"] == 1.0
    assert literal["gamma"] == {**literal["gamma"], "default": 1.0, "description": "Discount per sampled token."}


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    found = references(schema)
    assert len(found) > 10
    assert {reference.removeprefix("#/$defs/") for reference in found} <= set(schema["$defs"])


def test_the_command_prints_and_writes_it(dvpo: Callable[..., Result], schema: dict[str, Any], tmp_path: Path) -> None:
    shown = dvpo("schema")
    assert shown.exit_code == 0 and json.loads(shown.stdout) == schema
    assert dvpo("schema", "--output", tmp_path / "s.json").stdout == ""
    assert (tmp_path / "s.json").read_text() == shown.stdout

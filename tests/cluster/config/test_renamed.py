"""A key that has another name now: the former one has the same effect, and never both have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from cluster.config.renamed import RENAMED, rename_keys
from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.config.yaml_source import parse_source
from rollout.component import UserError

MODEL = "model: {path: m}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("text", "overrides", "share"),
    [
        ("reward:\n  recheck_share: 0.3", [], 0.3),
        ("reward:\n  gold_share: 0.3", [], 0.3),
        ("", ["reward.recheck_share=0.3"], 0.3),
        ("reward: {recheck_share: 0.3}", ["reward.recheck_share=0.4"], 0.4),
        ("reward: {gold_share: 0.3}", ["reward.recheck_share=0.4"], 0.4),
        ("reward: {recheck_share: 0.3}", ["reward.gold_share=0.4"], 0.4),
        ("reward: {gold_share: 0.3}", ["reward={recheck_share: 0.4}"], 0.4),
        ("reward: {recheck_share: 0.3}", ["reward={gold_share: 0.4}"], 0.4),
    ],
)
def test_the_former_name_has_the_same_effect(text: str, overrides: list[str], share: float, file: Path) -> None:
    file.write_text(MODEL + text)
    config = load_config(file, overrides)
    assert config.reward.gold_share == share
    written = yaml.safe_load(dump_config(config))["reward"]
    assert written["gold_share"] == share and "recheck_share" not in written
    file.write_text(dump_config(config))
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "reward:\n  recheck_share: 0.3\n  gold_share: 0.3",
            [],
            "{file}:3: reward.recheck_share: the former name of reward.gold_share, which is given too ({file}:4); keep "
            "that one",
        ),
        ("", ["reward.gold_share=1", "reward.recheck_share=1"], "--set reward.recheck_share=1: reward.recheck_share: "),
        (
            "",
            ["reward={gold_share: 1, recheck_share: 1}"],
            "reward.recheck_share: the former name of reward.gold_share",
        ),
    ],
)
def test_both_names_are_refused(text: str, overrides: list[str], message: str, file: Path) -> None:
    file.write_text(MODEL + text)
    with pytest.raises(UserError) as caught:
        load_config(file, overrides)
    assert message.format(file=file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "overrides", "place"),
    [
        ("reward:\n  recheck_share: 3", [], "{file}:3: reward.gold_share: must be less than"),
        ("", ["reward.recheck_share=3"], "--set reward.recheck_share=3: reward.gold_share: must be less than"),
        ("reward: {gold_share: 0}", ["reward.recheck_share=3"], "--set reward.recheck_share=3: reward.gold_share: "),
    ],
)
def test_a_wrong_value_is_told_with_its_place(text: str, overrides: list[str], place: str, file: Path) -> None:
    file.write_text(MODEL + text)
    with pytest.raises(UserError) as caught:
        load_config(file, overrides)
    assert str(caught.value).startswith(place.format(file=file))


def test_a_section_may_move_elsewhere() -> None:
    source = parse_source("a:\n  old: {x: [1, 2]}\n  rest: 1\n", "run.yaml")
    rename_keys(source, {"a.old": "b.new", "a.absent": "c", "rest.a": "d"})
    assert source.data == {"a": {"rest": 1}, "b": {"new": {"x": [1, 2]}}}
    assert source.place(("b", "new", "x", 1)) == "run.yaml:2"
    with pytest.raises(UserError, match=r"run.yaml:3: b is 1, so it has no 'new'"):
        rename_keys(parse_source("b: 1\na:\n  old: 2\n", "run.yaml"), {"a.old": "b.new"})


@pytest.mark.parametrize(("former", "key"), RENAMED.items())
def test_the_table_leads_to_keys_that_exist(former: str, key: str) -> None:
    assert exists(key) and not exists(former)


def exists(key: str) -> bool:
    section: type[BaseModel] = RunConfig
    *above, last = key.split(".")
    for name in above:
        annotation = section.model_fields[name].annotation
        assert isinstance(annotation, type)
        section = annotation
    return last in section.model_fields

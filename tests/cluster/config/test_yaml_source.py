"""Configuration files as data that knows where it was written."""

from __future__ import annotations

import re

import pytest
import yaml

from cluster.config.yaml_source import parse_source
from rollout.component import UserError

TEXT = """\
seed: 3
training:
  num_steps: 1e2
reward:
  noise:
    - type: a
      p: 0.1
    - {type: b, word: no, when: 2024-01-02, on: true}
algorithm: ppo
"""


def test_values_follow_yaml_1_2() -> None:
    data = parse_source(TEXT, "run.yaml").data
    assert data["training"] == {"num_steps": 100.0}
    assert data["reward"]["noise"][1] == {"type": "b", "word": "no", "when": "2024-01-02", "on": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("-2E3", -2000.0),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("1e", "1e"),
        ("e5", "e5"),
        ("0x1f", 31),
        ("~", None),
    ],
)
def test_numbers(text: str, value: object) -> None:
    found = parse_source(f"a: {text}", "run.yaml").data["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 010",
            "a: 010 begins with 0, and some readers of YAML take that for a number to base 8; write 10, or '010'",
        ),
        (
            "a: {b: [1, -007]}",
            "a.b.1: -007 begins with 0, and some readers of YAML take that for a number to base 8; w",
        ),
        (
            "a: 08",
            "a: 08 begins with 0, and some readers of YAML take that for a number to base 8; write 8, or '08' in",
        ),
        ("a: 1:30", "a: 1:30 is a number to base 60 to some readers of YAML; write the number itself, or '1:30' in"),
        ("a: 1:30:2.5", "a: 1:30:2.5 is a number to base 60 to some readers of YAML; write the number itself, or"),
    ],
)
def test_numbers_that_versions_of_yaml_read_differently_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^run.yaml:2: {re.escape(message)}"):
        parse_source(f"x: 1\n{text}", "run.yaml")
    with pytest.raises(UserError, match=r"^--set a=.*in quotes where a text is meant"):
        parse_source("x: 1", "run.yaml").override(text.replace(": ", "=", 1))


@pytest.mark.parametrize("text", ["0", "-0", "0.5", "00.5", "0x10", "1_000", "'010'", '"1:30"', "10:ab", "a:30"])
def test_what_all_versions_read_alike_is_read(text: str) -> None:
    source = parse_source(f"a: {text}", "run.yaml")
    read = source.data["a"]
    source.override(f"a={text}")
    assert source.data["a"] == read == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("seed",), "run.yaml:1"),
        (("training", "num_steps"), "run.yaml:3"),
        (("reward", "noise", 0, "p"), "run.yaml:7"),
        (("reward", "noise", 1, "word"), "run.yaml:8"),
        (("reward", "noise", 1, "missing"), "run.yaml:8"),  # the nearest thing around it
        (("reward", "functions"), "run.yaml:4"),
        (("nowhere", "at", "all"), "run.yaml"),
    ],
)
def test_place(path: tuple[str | int, ...], place: str) -> None:
    assert parse_source(TEXT, "run.yaml").place(path) == place


def test_overrides_change_values_and_places() -> None:
    source = parse_source(TEXT, "run.yaml")
    for assignment in (
        "seed=5",
        "training.num_steps=7",
        "reward.noise.0.p=1e-1",
        "reward.noise.2.type=c",
        "cluster.num_cpus=2",
        "algorithm.gamma=0.9",
        "name=x=y",
    ):
        source.override(assignment)
    assert source.data == {
        "seed": 5,
        "training": {"num_steps": 7},
        "reward": {
            "noise": [
                {"type": "a", "p": 0.1},
                {"type": "b", "word": "no", "when": "2024-01-02", "on": True},
                {"type": "c"},
            ]
        },
        "algorithm": {"preset": "ppo", "gamma": 0.9},
        "cluster": {"num_cpus": 2},
        "name": "x=y",
    }
    assert source.place(("seed",)) == "--set seed=5"
    assert source.place(("reward", "noise", 0, "p")) == "--set reward.noise.0.p=1e-1"
    assert source.place(("reward", "noise", 0, "type")) == "run.yaml:6"
    assert source.place(("cluster", "address")) == "--set cluster.num_cpus=2"
    assert source.place(("algorithm",)) == "run.yaml:9"


def test_the_last_override_of_a_key_counts() -> None:
    source = parse_source("a: {b: 1}", "run.yaml")
    source.override("a.b=2")
    source.override("a={b: 3}")
    assert source.data == {"a": {"b": 3}}
    assert source.place(("a", "b")) == "--set a={b: 3}"


def test_locate_puts_the_place_before_each_line_with_a_path() -> None:
    source = parse_source(TEXT, "run.yaml")
    message = "training.num_steps: too many\nreward.noise.1.word: odd\nno path here: really\n--resume: none"
    assert source.locate(message).splitlines() == [
        "run.yaml:3: training.num_steps: too many",
        "run.yaml:8: reward.noise.1.word: odd",
        "no path here: really",
        "--resume: none",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "run.yaml:3: a: given twice, first on line 1; keep one of them"),
        ("x:\n  a: 1\n  a: 2", "run.yaml:3: x.a: given twice, first on line 2; keep one of them"),
        ("- 1", "run.yaml:1: must be a mapping of keys to values, such as 'seed: 0'"),
        ("word", "run.yaml:1: must be a mapping of keys to values, such as 'seed: 0'"),
        ("1: a", "run.yaml:1: a key must be a name (got 1)"),
        ("[a]: b", "run.yaml:1: a key must be a name"),
        ("a: &x [*x]", "run.yaml:1: nested more than 32 deep"),
        ("a: 1\nb: [2", "run.yaml:2: not valid YAML: "),
        ("a: *nobody", "run.yaml:1: not valid YAML: found undefined alias 'nobody'"),
        ("a: !!python/object:os.system {}", "run.yaml:1: not valid YAML: "),
        ("a: 1\n---\nb: 2", "run.yaml:2: not valid YAML: "),
        ("a: \x00", "run.yaml: not valid YAML: "),
    ],
)
def test_malformed(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_source(text, "run.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_anchors_and_merges() -> None:
    data = parse_source("a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\n", "run.yaml").data
    assert data["b"] == {"x": 1, "y": 3}


def test_empty_file_is_an_empty_configuration() -> None:
    assert parse_source("", "run.yaml").data == {}
    assert parse_source("# only a comment\n", "run.yaml").data == {}

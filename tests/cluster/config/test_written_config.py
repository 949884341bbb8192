"""What a run writes down as its config.yaml, every command reads: for each task, preset and kind of value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.check.check import check_run
from cluster.check.machine import inspect_machine
from cluster.config.components import resolve
from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.config.yaml_source import parse_source
from cluster.config.yaml_values import dump_yaml
from learner.algorithms.presets import PRESETS
from rollout.tasks import TASKS
from rollout.tasks.libraries.scores import EXTRAS
from tests.rollout.tasks.libraries.test_verifiers import write as write_taskset

TASK_OPTIONS: dict[str, tuple[str, ...]] = {
    "dataset": ("train: q.jsonl, eval: {a: q.jsonl}",),
    "dataset, rejecting": (
        "type: dataset, train: q.jsonl, eval: {a: q.jsonl}, on_bad_row: reject, rejects: bad, max_reject_frac: 0.5",
    ),
    "chain": ("num_train: 64, num_eval: 9",),
    "reasoning_gym": (
        "train: {dataset: chain_sum, size: 64, seed: 1}, eval: {a: {dataset: chain_sum, size: 9, seed: 2}}",
        "reward.functions=[{type: reasoning_gym}]",
        "reward.gold=[]",
    ),
    "verifiers": (
        "train: {taskset: sums_to_write_down}, eval: {a: {taskset: sums_to_write_down, size: 2}}",
        "reward.functions=[{type: verifiers}]",
        "reward.gold=[]",
        "training.prompts_per_step=4",
    ),
    "math": ("num_train: 64, num_eval: 9",),
    "science": ("",),
    "dialogue": (
        "",
        "rollout.max_conversation_tokens=250",
        "reward.functions=[{type: outcome, metrics: {tcr: 1.0}}]",
        "reward.gold=[]",
    ),
}


def written(config: RunConfig, folder: Path) -> RunConfig:
    """What is read of the file that a run of ``config`` writes."""
    file = folder / "config.yaml"
    file.write_text(dump_config(resolve(config)))
    return load_config(file)


def assert_same_verdict(config: RunConfig, folder: Path) -> None:
    again = written(config, folder)
    assert again == resolve(again)
    machine = inspect_machine()  # once: what is available changes from moment to moment
    before, after = (check_run(which, overwrite=True, machine=machine) for which in (config, again))
    assert before.errors == after.errors == []
    assert before.plan == after.plan


@pytest.fixture
def base(run_file: Path) -> list[str]:
    (run_file.parent / "q.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    return ["reward.gold=[{type: exact_match}]", "training.samples_per_prompt=4", "rollout.max_prompt_tokens=192"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(preset: str, base: list[str], run_file: Path, tmp_path: Path) -> None:
    assert_same_verdict(load_config(run_file, [*base, f"algorithm={{preset: {preset}}}"]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASK_OPTIONS)
def test_every_task(
    name: str, base: list[str], run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in EXTRAS:
        pytest.importorskip(name, reason=f"the package {EXTRAS[name]} is not installed")
        write_taskset(tmp_path, "sums_to_write_down")
        monkeypatch.syspath_prepend(str(tmp_path))
    options, *more = TASK_OPTIONS[name]
    kind = "" if options.startswith("type:") else f"type: {name}, "
    assert_same_verdict(load_config(run_file, [*base, f"data.task={{{kind}{options}}}", *more]), tmp_path)


def test_no_built_in_task_is_left_out() -> None:
    assert set(TASKS) <= set(TASK_OPTIONS)


@pytest.mark.parametrize(
    "text", ["010", "08", "-007", "1:30", "08:15", "1e-6", ".5e1", "true", "no", "~", "2024-01-02", "0x1f", "", "a: b"]
)
def test_texts_that_look_like_something_else(text: str, base: list[str], run_file: Path, tmp_path: Path) -> None:
    data = {"a": text, "b": [text]}
    assert parse_source(dump_yaml(data), "x.yaml").data == data
    assert yaml.safe_load(dump_yaml(data)) == data
    stop = [] if not text else [f"rollout.sampling.stop={json.dumps([text])}"]
    config = load_config(run_file, [*base, *stop])
    assert written(config, tmp_path) == resolve(config)


@pytest.mark.parametrize("value", [1e-9, 1e22, -2.5e-7, 0, -3, True, None, 0.1])
def test_other_values(value: Any) -> None:
    read = parse_source(dump_yaml({"a": value}), "x.yaml").data["a"]
    assert read == value and type(read) is type(value)

"""What lies beside a starting model's weights: a run carries it, or the check says why it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Dvpo = Callable[..., Result]


@pytest.fixture
def model(run_file: Path, tiny_model: Path) -> Path:
    """A copy of the tiny model in the working folder."""
    shutil.copytree(tiny_model, run_file.parent / "model")
    return run_file.parent / "model"


def change(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    "values", [{"temperature": 0.8, "top_p": 0.7}, {"temperature": 0}, {"top_k": 5}, {"pad_token_id": -1}], ids=str
)
def test_values_that_are_only_carried_are_no_mistake(
    values: dict[str, Any], model: Path, run_file: Path, dvpo: Dvpo
) -> None:
    change(model / "generation_config.json", values)
    shown = dvpo("check", run_file, "--set", "model.path=model")
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(
    ("name", "values", "phrase"),
    [
        ("generation_config.json", {"max_new_tokens": 0}, "model/generation_config.json: ValueError: `max_new_tokens`"),
        ("generation_config.json", {"early_stopping": "so"}, "model/generation_config.json: ValueError: `early_stop"),
        ("generation_config.json", None, "model/generation_config.json is not valid JSON"),
        ("config.json", {"output_attentions": True}, "model/config.json cannot be used or saved: "),
        ("config.json", {"pad_token_id": 99_999}, "model/config.json cannot be used or saved: AssertionError: Padding"),
    ],
    ids=str,
)
def test_what_would_stop_the_run_is_named(
    name: str, values: dict[str, Any] | None, phrase: str, model: Path, run_file: Path, dvpo: Dvpo
) -> None:
    if values is None:
        (model / name).write_text("{")
    else:
        change(model / name, values)
    shown = dvpo("check", run_file, "--set", "model.path=model")
    assert shown.exit_code == 2, shown.output
    assert f"--set model.path=model: model.path: {phrase}" in shown.output
    assert "Traceback" not in shown.output


def test_code_of_a_model_is_told(model: Path, run_file: Path, dvpo: Dvpo) -> None:
    (model / "modeling_mine.py").write_text("")
    trusting = dvpo("check", run_file, "--set", "model.path=model", "--set", "model.trust_remote_code=true")
    assert trusting.exit_code == 0, trusting.output
    told = "model.trust_remote_code: Python code of the model is run on every host of the run: model/modeling_mine.py"
    assert told in trusting.output
    assert "trust_remote_code" not in dvpo("check", run_file, "--set", "model.path=model").output

"""Logs for Inspect, read back by its own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.report.inspect_log import write_inspect_log
from cluster.report.run_record import read_run
from rollout.component import UserError
from tests.cluster.report.made_runs import STEPS, make_run

TOOL = [
    {"role": "assistant", "content": "look"},
    {"role": "tool", "content": "found"},
    {"role": "assistant", "content": "8"},
]


@pytest.fixture
def inspect_log() -> Any:
    return pytest.importorskip("inspect_ai.log", reason="the package inspect-ai is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["eval", "json"])
def test_inspects_own_reader_opens_it(ending: str, tmp_path: Path, inspect_log: Any) -> None:
    def change(step: int, sample: Any) -> dict[str, Any]:
        return {"conversation": TOOL} if step == 2 else {"clean_reward": None} if step == 3 else {}

    record = read_run(make_run(tmp_path / "run", change_sample=change))
    path = tmp_path / "logs" / f"run.{ending}"
    assert write_inspect_log(record, path) == len(record.trajectories)
    log = inspect_log.read_eval_log(str(path))
    assert (log.status, log.eval.task, log.eval.metadata["settings"]) == (
        "success",
        f"dvpo/{record.name}",
        dict(record.settings.values),
    )
    by_id = {sample.metadata["trajectory_id"]: sample for sample in log.samples}
    assert len(by_id) == len(log.samples) == len({(sample.id, sample.epoch) for sample in log.samples})
    for found in record.trajectories:
        sample = by_id[found.trajectory_id]
        assert [(m.role, m.text) for m in sample.input] == [(m["role"], m["content"]) for m in found.prompt]
        assert (sample.output.completion, sample.target) == (found.response, found.reference or "")
        said = [m.text for m in sample.messages[len(found.prompt) :]]
        assert said == ([turn["content"] for turn in found.turns] or [found.response])
        assert sample.scores["observed"].value == found.observed and sample.metadata["step"] == found.step
        assert ("true" in sample.scores) == (found.clean is not None)
    truth = [found.clean for found in record.trajectories if found.clean is not None]
    mean = next(score for score in log.results.scores if score.name == "true")
    assert mean.metrics["mean"].value == pytest.approx(sum(truth) / len(truth))
    assert mean.unscored_samples == len(record.trajectories) - len(truth) > 0
    headers = inspect_log.read_eval_log(str(path), header_only=True)
    assert headers.eval.dataset.samples > 0 and STEPS > 3


def test_what_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_run(make_run(tmp_path / "run", with_samples=False))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UserError, match=r"--inspect: .*run.html: Inspect reads files that end in .eval or .json"):
        write_inspect_log(record, tmp_path / "run.html")
    with pytest.raises(UserError, match="has logged no trajectory"):
        write_inspect_log(record, tmp_path / "run.eval")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package inspect-ai: pip install 'dvpo\[inspect\]'"):
        write_inspect_log(record, tmp_path / "run.eval")

"""``dvpo scale`` on a run's folder; on a cluster it is tested with the jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from actors.ledger.report import LEDGER_NAME
from actors.recording.scale_order import read_order

Dvpo = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, as far as it is looked at."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LEDGER_NAME).touch()
    return folder


def test_a_number_is_told_and_taken_back(run: Path, dvpo: Dvpo) -> None:
    result = dvpo("scale", run, "--rollouts", "3")
    assert result.exit_code == 0 and "rollout workers wanted: 3" in result.output
    assert read_order(run) == 3
    result = dvpo("scale", run, "--rollouts", "config")
    assert result.exit_code == 0 and "as configured" in result.output
    assert read_order(run) is None


@pytest.mark.parametrize("number", ["0", "-1", "4097", "two", "1.5", ""])
def test_what_is_no_number_of_workers_is_refused(run: Path, dvpo: Dvpo, number: str) -> None:
    result = dvpo("scale", run, f"--rollouts={number}")
    assert result.exit_code == 2 and "is neither a number from 1 to 4096 nor 'config'" in result.output
    assert read_order(run) is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, dvpo: Dvpo) -> None:
    result = dvpo("scale", tmp_path / "none", "--rollouts", "3")
    assert result.exit_code == 2 and "no such run" in result.output

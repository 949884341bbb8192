"""A few kills of real saves; ``benchmarks/faults/checkpoint_kills.py`` is run with a hundred."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_newest_checkpoint_always_loads() -> None:
    command = [sys.executable, "-m", "benchmarks.faults.checkpoint_kills", "--kills", "5", "--seed", "3"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kills during saves in" in done.stdout
    assert "the newest complete checkpoint always loaded, equal to what was saved" in done.stdout

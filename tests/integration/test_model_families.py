"""Changed weights of models whose files are not as transformers has them in memory reach a real engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FAMILIES = ("Qwen3-MoE", "GLM-4-MoE", "gpt-oss")


def test_experts_and_router_biases_arrive_and_what_cannot_is_refused() -> None:
    """A learner, an engine that is synced twice, and one from the learner's checkpoint: :mod:`benchmarks.zoo`."""
    command = [sys.executable, "-m", "benchmarks.zoo", *FAMILIES]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert [line[1].strip() for line in lines] == list(FAMILIES)
    for line in lines[:2]:
        assert max(float(cell) for cell in line[2:5]) < 1e-4
        assert float(line[5]) > 0.5, "the weights have changed enough that old ones would show"
    assert "refused: vLLM's loader writes its experts" in lines[2][2]

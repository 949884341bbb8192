"""A small run configuration on disk, and the command line in process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.cli import main

RUN = """\
name: small
model:
  path: {model}
data:
  task: {{type: chain, num_train: 64, num_eval: 9}}
reward:
  functions:
    - {{type: exact_match}}
algorithm:
  preset: ppo
rollout:
  max_prompt_tokens: 32
  sampling: {{max_response_tokens: 24}}
training:
  num_steps: 2
  prompts_per_step: 8
  samples_per_prompt: 2
cluster:
  cpus_per_rollout_worker: 0.5
  cpus_per_learner_worker: 0.5
  object_store_mib: 96
"""


@pytest.fixture
def run_file(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``small.yaml`` in a folder of its own, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "small.yaml"
    path.write_text(RUN.format(model=tiny_model))
    return path


@pytest.fixture
def dvpo() -> Callable[..., Result]:
    """Run the command line with these arguments.

    torch is loaded before: without it each ``dvpo train`` would load it anew, in a process of its own.
    """
    import torch

    assert torch

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="dvpo")

    return run

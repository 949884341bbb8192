"""Whole runs: a small configuration on the tiny model, the command line in a process of its own, and what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL_ROLLOUT: dict[str, Any] = {
    "num_workers": 1,
    "max_prompt_tokens": 48,
    "kv_cache_mib": 64,
    "sampling": {"max_response_tokens": 12},
}


@dataclass
class Command:
    """A command line of dvpo in its own session, whose output goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def note_processes(self) -> None:
        """Remember every descendant that is alive now."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.seen[child.pid] = child
        except psutil.NoSuchProcess:
            pass

    def wait_for(self, text: str, timeout_s: float = 240.0) -> None:
        """Wait until ``text`` has been printed."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            assert self.process.poll() is None, f"ended before {text!r} was printed:\n{self.output}"
            assert time.monotonic() < deadline, f"{text!r} was not printed in {timeout_s} s:\n{self.output}"
            self.note_processes()
            time.sleep(0.2)

    def finish(self, timeout_s: float = 400.0) -> int:
        """Wait for the end; returns the exit status."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running after {timeout_s} s:\n{self.output}"
            self.note_processes()
            time.sleep(0.2)
        return int(self.process.returncode)

    def survivors(self, grace_s: float = 20.0) -> list[str]:
        """Descendants that outlive the command by more than ``grace_s``."""
        deadline = time.monotonic() + grace_s
        while alive := [p for p in self.seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
            if time.monotonic() > deadline:
                return [" ".join(process.cmdline()[:3]) for process in alive]
            time.sleep(0.2)
        return []


StartCommand = Callable[..., Command]


@pytest.fixture
def start_command(tmp_path: Path) -> Iterator[StartCommand]:
    """Start ``dvpo ARGS`` (or another program); whatever is left at the end of the test is ended."""
    commands: list[Command] = []

    def start(*arguments: str, program: tuple[str, ...] = (sys.executable, "-m", "cluster.cli"), **env: str) -> Command:
        log = tmp_path / f"command-{len(commands)}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*program, *arguments], stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment
            )
        commands.append(Command(process, log))
        return commands[-1]

    yield start
    for command in commands:
        command.note_processes()
        if command.process.poll() is None:
            command.process.send_signal(signal.SIGKILL)
            command.process.wait()
        for child in command.seen.values():
            if child.is_running():
                child.kill()


WriteConfig = Callable[..., Path]


@pytest.fixture
def write_config(tmp_path: Path, tiny_model: Path) -> WriteConfig:
    """Write a configuration that runs in seconds once it has started; keyword arguments change sections."""

    def write(name: str = "run", **sections: Any) -> Path:
        critic = {"num_heads": 2, "num_quantiles": 16}
        config: dict[str, Any] = {
            "name": name,
            "output_dir": str(tmp_path / "runs"),
            "model": {"path": str(tiny_model)},
            "data": {"task": {"type": "chain", "num_train": 512, "num_eval": 64}},
            "algorithm": {"preset": "dvpo", "critic": critic, "alpha": 0.25, "beta": 0.25},
            "rollout": SMALL_ROLLOUT,
            "learner": {"policy_lr": 1e-3, "critic_lr": 1e-3},
            "training": {
                "num_steps": 3,
                "prompts_per_step": 8,
                "samples_per_prompt": 2,
                "eval_every_steps": 0,
                "num_eval_prompts": 16,
                "checkpoint_every_steps": 0,
            },
            "cluster": {"num_cpus": 4, "object_store_mib": 128},
            "logging": {"progress": "plain"},
        }
        for section, values in sections.items():
            merged = section != "algorithm" and isinstance(values, dict) and isinstance(config.get(section), dict)
            config[section] = {**config[section], **values} if merged else values
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that belong to training steps."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "time/step_s" in line]

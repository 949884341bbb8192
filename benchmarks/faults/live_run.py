"""A run of ``dvpo train`` in a process of its own, watched through its status file and killed piece by piece."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

POLL_S = 0.05
PROMPT_POLL_S = 0.002
"""For what lasts a few hundredths of a second."""
ROOT = Path(__file__).resolve().parents[2]


class FaultTestError(AssertionError):
    """The run did not do what it promises; the message has the end of what it printed."""


@dataclass
class LiveRun:
    """One run of the command line; :meth:`start` may be called again after the driver was killed.

    Attributes:
        config: its YAML file.
        extra: further arguments of the command.
        within: a command that runs another one, such as on another host.
        environment: variables of the command.
    """

    config: Path
    extra: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        settings = yaml.safe_load(self.config.read_text())
        return Path(settings["output_dir"], settings["name"])

    @property
    def log(self) -> Path:
        """What the command printed, over all starts."""
        return self.config.with_suffix(".log")

    def start(self, resume: bool = False) -> None:
        """Start the command."""
        arguments = ["train", str(self.config), *self.extra, *(["--resume"] if resume else [])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        command = [*self.within, sys.executable, "-m", "cluster.cli", *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment | self.environment
            )

    def status(self) -> dict[str, Any]:
        """What the controller wrote last; empty before it wrote anything."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
            return found
        except (OSError, ValueError):
            return {}

    def stages(self) -> set[str]:
        """Names of the stages that are open now."""
        return {stage["name"] for stage in self.status().get("stages", [])}

    def steps(self) -> int:
        """Steps whose metrics were written."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        except OSError:
            return 0
        done = [json.loads(line)["step"] for line in lines if line.endswith("}") and "time/step_s" in line]
        return max(done, default=0)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float, poll_s: float = POLL_S) -> float:
        """Seconds until ``condition`` held.

        Raises:
            FaultTestError: the run ended before, or it took too long.
        """
        begin = time.monotonic()
        while not condition():
            if self.process is None or self.process.poll() is not None:
                raise self.failure(f"the run ended before {what}")
            if time.monotonic() - begin > timeout_s:
                raise self.failure(f"not {what} within {timeout_s:g} s")
            time.sleep(poll_s)
        return time.monotonic() - begin

    def pid(self, victim: str) -> int:
        """Process id of ``driver``, ``controller``, ``learner-0``, ``reward-0``, ``rollout-0`` or ``engine-0``."""
        assert self.process is not None
        if victim == "driver":
            return self.process.pid
        kind, _, number = victim.partition("-")
        workers = self.status()["workers"]
        if kind != "engine":
            return int(workers[victim]["pid"])
        rollout = psutil.Process(workers[f"rollout-{number}"]["pid"])
        largest = max(rollout.children(recursive=True), key=lambda child: child.memory_info().rss)
        return int(largest.pid)

    def kill(self, victim: str) -> None:
        """SIGKILL."""
        self.note_processes()
        os.kill(self.pid(victim), signal.SIGKILL)
        if victim == "driver":
            assert self.process is not None
            self.process.wait()

    def freeze(self, victim: str) -> None:
        """SIGSTOP: the process is there and does nothing."""
        self.note_processes()
        os.kill(self.pid(victim), signal.SIGSTOP)

    def finish(self, timeout_s: float) -> int:
        """Wait for the end; returns the exit status."""
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise self.failure(f"still running after {timeout_s:g} s")
            self.note_processes()
            time.sleep(0.1)
        return int(self.process.returncode)

    def note_processes(self) -> None:
        """Remember every process of the run that is alive now."""
        assert self.process is not None
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        self.seen |= {child.pid: child for child in children}

    def survivors(self, grace_s: float = 20.0) -> list[str]:
        """Processes of the run that outlive it by more than ``grace_s``."""
        deadline = time.monotonic() + grace_s
        while alive := [p for p in self.seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
            if time.monotonic() > deadline:
                return [f"{process.pid} {' '.join(process.cmdline()[:3])}" for process in alive]
            time.sleep(0.1)
        return []

    def ledger(self) -> dict[str, Any]:
        """``dvpo ledger --json`` of the run, which has to be balanced."""
        command = [sys.executable, "-m", "cluster.cli", "ledger", str(self.folder), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode != 0:
            raise self.failure(f"the ledger does not balance: {done.stdout[-1500:]}{done.stderr[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def end(self) -> None:
        """Whatever is left of the run is killed."""
        if self.process is None:
            return
        self.note_processes()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for child in self.seen.values():
            if child.is_running():
                child.kill()  # also what is frozen

    def failure(self, reason: str) -> FaultTestError:
        """An error that shows the end of the log."""
        end = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
        return FaultTestError(f"{reason}\n{end}")


def write_small_config(folder: Path, model: Path, name: str, **sections: Any) -> Path:
    """A configuration of a run whose steps take a fraction of a second; keyword arguments change sections."""
    config: dict[str, Any] = {
        "name": name,
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model)},
        "data": {"task": {"type": "chain", "num_train": 1024, "num_eval": 64}},
        "algorithm": {
            "preset": "dvpo",
            "critic": {"num_heads": 2, "num_quantiles": 16},
            "alpha": 0.25,
            "beta": 0.25,
        },
        "rollout": {"num_workers": 1, "max_prompt_tokens": 48, "kv_cache_mib": 64},
        "reward": {"functions": [{"type": "exact_match"}], "noise": [{"type": "symmetric_flip", "p": 0.2}]},
        "learner": {"policy_lr": 1e-4, "critic_lr": 1e-3},
        "training": {"num_steps": 100_000, "prompts_per_step": 16, "samples_per_prompt": 2, "num_eval_prompts": 8},
        "cluster": {"num_cpus": 4, "object_store_mib": 128},
        "logging": {"progress": "plain", "tensorboard": False},
    }
    config["rollout"]["sampling"] = {"max_response_tokens": 24}
    config["training"] |= {"eval_every_steps": 0, "checkpoint_every_steps": 5}
    for section, values in sections.items():
        config[section] = {**config[section], **values} if section in config else values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def make_small_model(folder: Path) -> Path:
    """A random language model of 40 thousand weights that can spell the chain task."""
    from cluster.warmstart.warmstart import WarmstartConfig, build_model, build_tokenizer
    from rollout.tasks.chain import Chain

    options = WarmstartConfig(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128)
    tokenizer = build_tokenizer(Chain(Chain.Config()).alphabet(), options.max_position)
    build_model(tokenizer, options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

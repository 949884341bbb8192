"""A run's numbers for Prometheus, through Ray: every node of a cluster gives them out beside Ray's own metrics.

``docs/monitoring.md`` lists them. Ray puts ``ray_`` in front of each name. All have the label ``run``.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping, Sequence

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from actors.groups import Group
from actors.recording.meters import Meters, NoMeters

PREFIX = "dvpo_"
REPEAT_S = 5.0
"""Seconds after which the values of gauges are given out again."""
PHASES = {
    "time/step_s": "step",
    "time/wait_s": "wait",
    "time/train_s": "train",
    "time/sync_load_s": "sync",
    "time/eval_s": "evaluate",
}
"""What the histogram of seconds is over, by metric."""
SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]
TOKENS = [8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0]
VERSIONS = [0.5, 1.5, 2.5, 4.5, 8.5, 16.5]


def metric_name(key: str) -> str:
    """The name of a key of metrics.jsonl, without Ray's prefix: ``vllm/num_engines`` is ``dvpo_vllm_num_engines``."""
    return PREFIX + re.sub(r"[^A-Za-z0-9_]", "_", key)


class EventCounter:
    """Counts events, in whichever process tells them.

    Args:
        run: name of the run.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._events = Counter(f"{PREFIX}events", description="Events by kind.", tag_keys=("run", "kind", "level"))

    def event(self, kind: str, level: str) -> None:
        """See :class:`Meters`."""
        self._events.inc(1.0, tags=self._tags | {"kind": kind, "level": level})


class RayMeters(EventCounter):
    """Gauges of each metric of a step, histograms of seconds, lengths and staleness, and a counter of events.

    Args:
        run: name of the run.
        num_rollout_workers: as many as the run needs, to compare with the engines that serve.
    """

    def __init__(self, run: str, num_rollout_workers: int) -> None:
        super().__init__(run)
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[str, float] = {}
        self._seconds = self._histogram("phase_seconds", "Wall time of a step and of its phases.", SECONDS, "phase")
        self._tokens = self._histogram("response_tokens", "Tokens of each response trained on.", TOKENS)
        self._staleness = self._histogram("staleness_versions", "Weight versions behind the update.", VERSIONS)
        self._set("rollout_workers", float(num_rollout_workers), "Rollout workers that the run needs.")
        self._set("last_step_timestamp_seconds", time.time(), "When the last step, or the start, was over.")
        # Ray gives out a value once; a step may take longer than the time between two looks of Prometheus.
        self._is_closed = threading.Event()
        threading.Thread(target=self._repeat, name="meters", daemon=True).start()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`Meters`. A number that is not finite is given out as such: Prometheus knows NaN."""
        self._set("step", float(step), "Updates done.")
        self._set("last_step_timestamp_seconds", time.time(), "When the last step, or the start, was over.")
        for key, value in metrics.items():
            self._set(metric_name(key).removeprefix(PREFIX), float(value), f"{key} of docs/metrics.md")
            if key in PHASES and math.isfinite(value):
                self._seconds.observe(max(value, 1e-9), tags=self._tags | {"phase": PHASES[key]})

    def batch(self, groups: Sequence[Group], version: int) -> None:
        """See :class:`Meters`."""
        for group in groups:
            for sample in group.samples:
                self._tokens.observe(max(float(sample.summary.num_response_tokens), 1e-9), tags=self._tags)
                behind = float(version - sample.summary.policy_version_min)
                self._staleness.observe(max(behind, 1e-9), tags=self._tags)  # Ray refuses 0

    def close(self) -> None:
        """Give out nothing more; what was given out is forgotten with this process."""
        self._is_closed.set()

    def _repeat(self) -> None:
        while not self._is_closed.wait(REPEAT_S):
            for name, value in list(self._values.items()):
                self._gauges[name].set(value, tags=self._tags)

    def _set(self, name: str, value: float, description: str) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(PREFIX + name, description=description, tag_keys=("run",))
        self._values[name] = value
        self._gauges[name].set(value, tags=self._tags)

    def _histogram(self, name: str, description: str, boundaries: list[float], *keys: str) -> Histogram:
        return Histogram(PREFIX + name, description=description, boundaries=boundaries, tag_keys=("run", *keys))


def make_meters(run: str, num_rollout_workers: int) -> Meters:
    """The meters of a run; none outside of Ray."""
    return RayMeters(run, num_rollout_workers) if ray.is_initialized() else NoMeters()


def make_event_counter(run: str) -> EventCounter | NoMeters:
    """What counts events that are told outside of the controller."""
    return EventCounter(run) if ray.is_initialized() else NoMeters()

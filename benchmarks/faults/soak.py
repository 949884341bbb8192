"""Soak: a very small run of many steps, watched from outside for anything that grows.

``python -m benchmarks.faults.soak`` makes a tiny model, trains it for 2,000 steps, and every few seconds notes memory,
open files and threads of each process, what the object store occupies, and the size of the run's folder. After a
warm-up (the first fifth of the samples) a line is fitted to each series. It prints a table, compares the step times of
the first and last quarter, draws a plot, and ends with status 1 if something grows by more than 5 %.

Private memory (resident minus shared) is what is judged: pages of the object store count for every process that maps
them, and are reported once, by themselves.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAX_GROWTH = 0.05
SMALL_MIB = 2.0
"""Growth below this is not judged: an allocator's noise in a small process."""
WARM_UP = 0.2
ALL = "all"
Series = dict[tuple[str, str], list[tuple[float, float]]]
"""``(process, quantity)`` -> (seconds since the first step, value)."""


@dataclass(frozen=True)
class Growth:
    """A line fitted to one series after the warm-up, at its two ends."""

    process: str
    quantity: str
    begin: float
    end: float

    @property
    def frac(self) -> float:
        """Relative growth from one end to the other."""
        return (self.end - self.begin) / max(abs(self.begin), 1e-9)

    @property
    def is_leak(self) -> bool:
        """Whether it counts: more than 5 %, and more than noise."""
        noise = SMALL_MIB if self.quantity.endswith("mib") else 2.0
        judged = self.quantity in ("private_mib", "fds", "threads", "object_store_mib")
        return judged and self.frac > MAX_GROWTH and self.end - self.begin > noise


def configuration(model: Path, output: Path, num_steps: int) -> dict[str, Any]:
    """Four prompts by two samples, one engine, one learner rank, generation beside training, no evaluation."""
    return {
        "name": "soak",
        "output_dir": str(output),
        "model": {"path": str(model)},
        "data": {"task": {"type": "chain"}},
        "algorithm": {"preset": "dvpo", "critic": {"num_heads": 2, "num_quantiles": 16}, "alpha": 0.25, "beta": 0.25},
        "rollout": {"max_prompt_tokens": 64, "kv_cache_mib": 64, "sampling": {"max_response_tokens": 12}},
        "training": {
            "num_steps": num_steps,
            "prompts_per_step": 4,
            "samples_per_prompt": 2,
            "max_staleness": 1,
            "eval_every_steps": 0,
            "num_eval_prompts": 4,
            "checkpoint_every_steps": 200,
        },
        "cluster": {"num_cpus": 4, "object_store_mib": 128},
        "logging": {"progress": "plain"},
    }


def title(process: psutil.Process) -> str:
    """What a process is, without what it is doing at the moment."""
    words = process.cmdline()
    first: str = words[0] if words else process.name()
    if first.startswith(("ray::", "VLLM::")):
        return first.split(".")[0].strip()
    if "resource_tracker" in " ".join(words):
        return "resource_tracker"
    script = next((word for word in words[1:] if word.endswith(".py")), "")
    return Path(script or first).stem if "-m" not in words else words[words.index("-m") + 1]


def sample(driver: psutil.Process, run_dir: Path) -> dict[tuple[str, str], float]:
    """All quantities now."""
    values: dict[tuple[str, str], float] = {}
    for process in [driver, *driver.children(recursive=True)]:
        with suppress(psutil.Error, OSError), process.oneshot():
            memory, name = process.memory_info(), f"{title(process)} {process.pid}"
            values[name, "rss_mib"] = memory.rss / 2**20
            values[name, "private_mib"] = (memory.rss - memory.shared) / 2**20
            values[name, "fds"] = process.num_fds()
            values[name, "threads"] = process.num_threads()
            if name.startswith("raylet"):
                values[ALL, "object_store_mib"] = plasma_bytes(process.pid) / 2**20
    files = [path for path in run_dir.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    with suppress(OSError):
        values[ALL, "run_folder_mib"] = sum(path.stat().st_size for path in files) / 2**20
    return values


def plasma_bytes(pid: int) -> int:
    """Memory that the object store of a raylet occupies: what was used in it at any time."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(link).startswith("/dev/shm/plasma"):
                return link.stat().st_blocks * 512
    return 0


def watch(command: list[str], log: Path, run_dir: Path, interval_s: float) -> Series:
    """Run the command to its end; series from its first training step on."""
    series: Series = defaultdict(list)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    begin = None
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as run:
        driver = psutil.Process(run.pid)
        try:
            while run.poll() is None:
                if begin is None and step_seconds(run_dir):
                    begin = time.monotonic()
                if begin is not None:
                    with suppress(psutil.NoSuchProcess):
                        for key, value in sample(driver, run_dir).items():
                            series[key].append((time.monotonic() - begin, value))
                with suppress(subprocess.TimeoutExpired):
                    run.wait(interval_s)
        except BaseException:
            run.terminate()  # it writes a checkpoint and clears up
            raise
    if run.returncode != 0:
        raise SystemExit(f"the run ended with status {run.returncode}; see {log}")
    return series


def step_seconds(run_dir: Path) -> list[float]:
    """Step times so far, in seconds."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["time/step_s"] for record in records if "time/step_s" in record]


def growths(series: Series) -> list[Growth]:
    """Fits of all series that last for most of the run; a process of a few seconds cannot leak for long."""
    last = max(points[-1][0] for points in series.values())
    fitted = []
    for (process, quantity), points in sorted(series.items()):
        kept = [(at, value) for at, value in points if at >= WARM_UP * last]
        if len(kept) >= 3 and kept[-1][0] - kept[0][0] >= 0.5 * last:
            times, values = zip(*kept, strict=True)
            slope, offset = statistics.linear_regression(times, values)
            fitted.append(Growth(process, quantity, offset + slope * times[0], offset + slope * times[-1]))
    return fitted


def table(fitted: list[Growth], steps: list[float]) -> list[str]:
    """The report, in Markdown."""
    lines = ["| process | quantity | after warm-up | at the end | growth |", "|---|---|---:|---:|---:|"]
    for growth in fitted:
        mark = " **grows**" if growth.is_leak else ""
        lines.append(
            f"| {growth.process} | {growth.quantity} | {growth.begin:.1f} | {growth.end:.1f} "
            f"| {growth.frac:+.1%}{mark} |"
        )
    quarter = max(1, len(steps) // 4)
    first, end = statistics.median(steps[:quarter]), statistics.median(steps[-quarter:])
    return [
        *lines,
        "",
        f"{len(steps)} steps; median step time {first:.3f} s in the first quarter, {end:.3f} s in the last",
    ]


def plot(series: Series, fitted: list[Growth], steps: list[float], path: Path) -> None:
    """Private memory of each process, open files, and step time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5))
    lasting = {growth.process for growth in fitted}
    for axis, quantity in zip(axes[:2], ("private_mib", "fds"), strict=True):
        for (process, name), points in sorted(series.items()):
            if name == quantity and process in lasting:
                axis.plot(*zip(*points, strict=True), label=process.rpartition(" ")[0])
        axis.set(xlabel="seconds since the first step", title=quantity, ylim=(0, None))
    axes[0].legend(fontsize=6)
    axes[2].plot(steps, ".", markersize=2)
    axes[2].set(xlabel="step", title="time/step_s", ylim=(0, 3 * statistics.median(steps)))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def write_series(series: Series, path: Path) -> None:
    """All samples as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["process", "quantity", "seconds", "value"])
        writer.writerows([*key, f"{at:.1f}", f"{value:.3f}"] for key, points in series.items() for at, value in points)


def main() -> int:
    """Run, report, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=ROOT / "runs", help="holds the run's folder soak/")
    parser.add_argument("--interval-s", type=float, default=5.0)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "soak.png")
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    dvpo = [sys.executable, "-m", "cluster.cli"]
    model = output / "soak-model"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if not (model / "config.json").is_file():
        subprocess.run([*dvpo, "warmstart", "--output", str(model), "--num-steps", "20"], env=environment, check=True)
    config = output / "soak.yaml"
    config.write_text(yaml.safe_dump(configuration(model, output, options.num_steps)))
    run_dir = output / "soak"
    train = [*dvpo, "train", str(config), "--overwrite"]
    series = watch(train, output / "soak.log", run_dir, options.interval_s)
    steps, fitted = step_seconds(run_dir), growths(series)
    write_series(series, output / "soak.csv")
    plot(series, fitted, steps, options.plot)
    print("\n".join(table(fitted, steps)))
    leaks = [growth for growth in fitted if growth.is_leak]
    print(f"{len(leaks)} series grow by more than {MAX_GROWTH:.0%}")
    return 1 if leaks else 0


if __name__ == "__main__":
    raise SystemExit(main())

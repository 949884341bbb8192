"""A remote reward that fails: does a run complete, is each trajectory accounted for, and what does it cost?

``python -m benchmarks.faults.remote_reward`` trains the demo with the reward on a server, in turn without and with
faults (20 % time-outs, 10 % HTTP 500, 5 % malformed bodies, 1 % NaN), both with the same latency. After each run the
ledger, the server's log and the trajectories that were trained on are compared; then the throughputs.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.live_run import ROOT, FaultTestError, LiveRun

NUM_WARM_STEPS = 5
"""Steps before the part that is timed."""
NUM_LAST_STEPS = 5
"""Steps after it."""
Settings = dict[str, dict[str, Any]]
SETTINGS: dict[str, Settings] = {
    "as it is": {},
    "hedged": {"remote": {"hedge_after_s": 0.5}},
    "hedged, max_staleness 4": {"remote": {"hedge_after_s": 0.5}, "training": {"max_staleness": 4}},
    "hedged, timeout 2 s, max_staleness 4": {
        "remote": {"hedge_after_s": 0.5, "timeout_s": 2.0},
        "training": {"max_staleness": 4},
    },
}


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        per_s: trajectories trained on per second, the first and last steps aside.
        counts: what became of trajectories and requests.
    """

    per_s: float
    counts: dict[str, int]


def configuration(folder: Path, model: Path, url: str, name: str, num_steps: int, settings: Settings) -> Path:
    """The demo with its reward on a server; evaluation before and after only."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    remote = {"type": "remote", "url": url, "score_range": [0, 1], "max_connections": 1024}
    remote |= settings.get("remote", {})
    changes: Settings = {
        "model": {"path": str(model)},
        "reward": {"functions": [remote], "max_concurrent_requests": 512},
        "training": {"num_steps": num_steps, "eval_every_steps": 0, "num_eval_prompts": 8},
        "cluster": {"num_cpus": 4},
        "logging": {"progress": "plain", "tensorboard": False, "trajectory_samples_per_step": 1000},
    }
    for source in (changes, settings):
        for section in source.keys() - {"remote"}:
            config[section] = {**config.get(section, {}), **source[section]}
    config |= {"name": name, "output_dir": str(folder / "runs")}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def reward_server(folder: Path, latency_s: float, faults: bool) -> Iterator[str]:
    """The server in a process of its own; gives its URL."""
    (folder / "port").unlink(missing_ok=True)
    arguments = ["--folder", str(folder), "--latency-s", str(latency_s), *(["--faults"] if faults else [])]
    command = [sys.executable, "-m", "benchmarks.faults.faulty_reward_server", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        try:
            deadline = time.monotonic() + 120
            while not (folder / "port").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise FaultTestError("the reward server did not start")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{(folder / 'port').read_text()}/score"
        finally:
            process.kill()


def measure(
    folder: Path, model: Path, name: str, settings: Settings, options: argparse.Namespace, faults: bool
) -> Measured:
    """One run with its own server, checked."""
    with reward_server(folder, options.latency_s, faults) as url:
        config = configuration(folder, model, url, name, options.num_steps, settings)
        run = LiveRun(config, ("--overwrite",))
        run.start()
        try:
            if run.finish(options.timeout_s) != 0:
                raise run.failure("the run failed")
        finally:
            run.end()
    return Measured(throughput(run.folder), check(run, folder / "requests.jsonl", settings))


def throughput(run_dir: Path) -> float:
    """Trajectories per second, from the times at which steps were committed.

    The last steps wait for the last answers, because nothing else is generated any more; they are not timed.
    """
    with sqlite3.connect(run_dir / "ledger.sqlite") as ledger:
        steps = ledger.execute("SELECT num_samples, committed_at FROM steps ORDER BY step").fetchall()
    timed = steps[NUM_WARM_STEPS:-NUM_LAST_STEPS]
    return float(sum(number for number, _ in timed) / (timed[-1][1] - steps[NUM_WARM_STEPS - 1][1]))


def check(run: LiveRun, log: Path, settings: Settings) -> dict[str, int]:
    """Counts of a run whose ledger is balanced and agrees with the server's log.

    Raises:
        FaultTestError: it is not, or does not.
    """
    report = run.ledger()
    if not report["balanced"] or report["num_lost"] or report["num_trained_twice"]:
        raise FaultTestError(report["verdict"])
    return account(run.folder, log, 1 + settings.get("reward", {}).get("max_retries", 2))


def account(run_dir: Path, log: Path, num_calls: int) -> dict[str, int]:
    """Compare the ledger and the trajectories trained on with the server's log, one by one; returns counts.

    Args:
        num_calls: of the reward for one trajectory, retries included.

    Raises:
        FaultTestError: something does not follow from what the server has answered.
    """
    requests: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        record = json.loads(line)
        requests[record["id"]].append(record)
    with sqlite3.connect(run_dir / "ledger.sqlite") as ledger:
        samples = ledger.execute("SELECT trajectory_id, state, reason FROM samples").fetchall()
    wrong, counts = [], Counter[str]()
    for name, state, reason in samples:
        kinds = [record["kind"] for record in requests[name]]
        outcome = "trained" if state == "trained" else f"{state}: {reason}"
        counts[outcome] += 1
        counts["requests"] += len(kinds)
        counts["requests again"] += max(len(kinds) - 1, 0)
        if not accounted(outcome, kinds, num_calls):
            wrong.append(f"{name} is {outcome}; the server says {kinds}")
    wrong += other_scores(run_dir, requests)
    if wrong:
        raise FaultTestError(f"{len(wrong)} trajectories are not accounted for, such as {wrong[:3]}")
    return dict(counts)


def accounted(outcome: str, kinds: list[str], num_calls: int) -> bool:
    """Whether what became of a trajectory follows from the answers to its requests, in their order.

    An answer before the last one, a good one too, may have come too late on a busy machine.
    """
    if outcome == "trained":
        return "" in kinds
    if outcome == "dropped: no score: error (invalid)":
        return "nan" in kinds
    if outcome == "dropped: no score: error (infrastructure)":
        return len(kinds) >= num_calls
    return outcome.startswith(("pending", "in_flight", "ready"))  # admitted, and not needed at the end


def other_scores(run_dir: Path, requests: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Trajectories that were trained on with another score than the server gave."""
    wrong = []
    for path in (run_dir / "trajectories").glob("step-*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            name = record["trajectory_id"]
            given = [request["score"] for request in requests[name] if request["kind"] == ""]
            if record["clean_reward"] not in given:
                wrong.append(f"{name} was trained on with {record['clean_reward']}; the server gave {given}")
    return wrong


def main() -> int:
    """Run all settings, print a table; status 1 if the last setting is slower than --min-ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for runs and logs")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--num-steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--timeout-s", type=float, default=1200.0, help="longest time of one run")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--min-ratio", type=float, default=0.8)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ratio = 0.0
    print("| setting | without faults | with faults | ratio |\n|---|---:|---:|---:|", flush=True)
    for setting in options.settings:
        found: dict[bool, list[Measured]] = {False: [], True: []}
        for index in range(options.repeats):
            for faults in (False, True):
                name = f"{setting.replace(' ', '-').replace(',', '')}-{'faults' if faults else 'none'}-{index}"
                one = measure(folder, options.model.resolve(), name, SETTINGS[setting], options, faults)
                print(f"{name}: {one.per_s:.1f} trajectories/s, {one.counts}", file=sys.stderr, flush=True)
                found[faults].append(one)
        means = {faults: statistics.mean(one.per_s for one in members) for faults, members in found.items()}
        ratio = means[True] / means[False]
        print(f"| {setting} | {means[False]:.1f}/s | {means[True]:.1f}/s | {ratio:.2f} |", flush=True)
    return 0 if ratio >= options.min_ratio else 1


if __name__ == "__main__":
    raise SystemExit(main())

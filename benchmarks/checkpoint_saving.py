"""How long a checkpoint holds training up, and how long it takes in all, for models of two sizes.

    python -m benchmarks.checkpoint_saving [--repeats 3]

One learner rank on DeepSpeed (ZeRO 2, float32, one thread) with policy and critic, in this process: the copy into
memory, which training waits for; the files, hashed and synced, with the manifest, alone; and the same beside updates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

from actors.workers.learner_worker import LearnerSpec, LearnerWorker
from benchmarks.faults.checkpoint_kills import samples
from cluster.warmstart.warmstart import WarmstartConfig, build_model, build_tokenizer
from learner.config import LearnerConfig, ModelConfig
from learner.storage.manifest import SnapshotFacts, begin, commit
from rollout.tasks.chain import Chain

SIZES = {
    "demo": WarmstartConfig(),
    "large": WarmstartConfig(hidden_size=768, num_layers=7, num_heads=12, intermediate_size=2048),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    worker = LearnerWorker()
    rows = []
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="checkpoint-saving-") as folder:
            rows.append(f"{name:6} {measure(worker, Path(folder), size, options.repeats)}")
            worker.shutdown()
    print("size   policy M  critic M  MiB     copy s  write s  update s  update while writing s")
    print("\n".join(rows))


def measure(worker: LearnerWorker, folder: Path, size: WarmstartConfig, repeats: int) -> str:
    """One row: medians over ``repeats`` saves."""
    tokenizer = build_tokenizer(Chain(Chain.Config()).alphabet(), size.max_position)
    build_model(tokenizer, size).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    host, port = "127.0.0.1", 29555
    options: dict[str, Any] = {"critic": {"num_heads": 2, "num_quantiles": 32}}
    spec = LearnerSpec(ModelConfig(path=str(folder / "model")), LearnerConfig(), "dvpo", options, 1000)
    setup = worker.setup(0, 1, host, port, spec)
    update = statistics.median(timed(worker.update, samples(i), i) for i in range(3))
    copies, writes, slowed = [], [], []
    facts = SnapshotFacts(0, 1, 2)
    for i in range(repeats):
        copies.append(timed(worker.take_snapshot))
        writes.append(timed(write, worker, folder / f"step-{i}", facts))
        facts = worker.take_snapshot()
        thread = threading.Thread(target=write, args=(worker, folder / f"beside-{i}", facts))
        thread.start()
        while thread.is_alive():
            slowed.append(timed(worker.update, samples(i), i))
        thread.join()
    medians = [statistics.median(values) for values in (copies, writes)]
    return (
        f"{setup['policy_parameters'] / 1e6:8.1f}  {setup['critic_parameters'] / 1e6:8.1f}  "
        f"{facts.num_bytes / 2**20:6.0f}  {medians[0]:6.2f}  {medians[1]:7.2f}  {update:8.2f}  "
        f"{statistics.median(slowed):22.2f}"
    )


def write(worker: LearnerWorker, final: Path, facts: SnapshotFacts) -> None:
    """Everything after the copy."""
    partial = begin(final, facts.num_bytes)
    commit(partial, final, {"num_ranks": 1, "zero_stage": 2}, worker.write_snapshot(str(partial)))


def timed(call: Any, *arguments: Any) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

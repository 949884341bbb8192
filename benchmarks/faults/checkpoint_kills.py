"""Is there always a checkpoint that loads? Saves a small learner again and again, each save killed at a random moment.

Every round forks a process that is one learner rank on DeepSpeed: it clears up after the one before, loads the newest
complete checkpoint, trains one update (in one round of four it goes on with the same step, so that the save replaces a
checkpoint), and saves while it trains the next update. It is sent SIGKILL at a random moment of that save. The next
round must find a checkpoint that is at least as new as the last one reported complete, and whose loaded state (weights,
optimiser, random streams, counters) has the digest that the state had when it was saved.

    python -m benchmarks.faults.checkpoint_kills --kills 100 --seed 0

Exit status 1 if a single round fails. Only the imports are shared between rounds: the processes are forked before any
thread or process group is there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from actors.workers.learner_worker import LearnerSpec, LearnerWorker
from benchmarks.faults.forked_process import ForkedProcess, Tell
from learner.config import LearnerConfig, ModelConfig
from learner.storage.folders import prune, sweep
from learner.storage.manifest import MANIFEST, SnapshotFacts, begin, checkpoint_step, commit, find_newest_complete
from rollout.trajectory import FinishReason, ScoredTrajectory, Trajectory

KEEP = 2
ROUND_TIMEOUT_S = 120.0
AFTER = "just after the save (not counted)"
PRELOADED = (
    "deepspeed",
    "learner.algorithms.with_critic.dvpo",
    "learner.engine.deepspeed_engine",
    "learner.checkpoint.snapshot",
)
"""What takes seconds to import; forked processes have it."""


def make_model(folder: Path) -> None:
    """A random Qwen2 model of 100 thousand weights."""
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=64, num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=0, **shape)
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def samples(step: int) -> list[ScoredTrajectory]:
    """The batch of a step."""
    rng, made = random.Random(step), []
    for i in range(8):
        ids = tuple(rng.randrange(3, 16) for _ in range(16))
        mask = (False,) * 6 + (True,) * 10
        logprobs = (0.0,) * 6 + tuple(-rng.uniform(1.0, 6.0) for _ in range(10))
        trajectory = Trajectory(
            prompt_id=f"p{i // 4}",
            sample_index=i % 4,
            token_ids=ids,
            action_mask=mask,
            rollout_logprobs=logprobs,
            response_text="",
            finish_reason=FinishReason.STOP,
            policy_version_min=step,
            policy_version_max=step,
        )
        made.append(ScoredTrajectory(trajectory=trajectory, reward=float(rng.random() < 0.5), group_id=f"p{i // 4}@0"))
    return made


def digest(value: Any) -> str:
    """A hash of nested state, to the last bit."""
    found = hashlib.sha256()

    def feed(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(part.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(part, dict):
            for key in part:
                found.update(repr(key).encode())
                feed(part[key])
        elif isinstance(part, list | tuple):
            found.update(f"{type(part).__name__}{len(part)}".encode())
            for entry in part:
                feed(entry)
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            feed(vars(part))
        else:
            found.update(repr(part).encode())

    feed(value)
    return found.hexdigest()[:16]


def child(checkpoints: Path, model: Path, again: bool, tell: Tell) -> None:
    """One learner rank: loads, trains, saves, and trains on until it is killed."""
    torch.set_num_threads(1)
    worker = LearnerWorker()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"critic": {"num_heads": 2, "num_quantiles": 32}}
    learner_config = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3)
    worker.setup(
        0, 1, "127.0.0.1", port, LearnerSpec(ModelConfig(path=str(model)), learner_config, "dvpo", options, 1000)
    )
    removed = [path.name for path in sweep(checkpoints)]
    newest, skipped = find_newest_complete(checkpoints)
    step = 0
    if newest is not None:
        step = int(worker.load(str(newest))["step"])
    tell("loaded", step, state_digest(worker, step), removed=removed, skipped=[str(entry) for entry in skipped])
    if not again or step == 0:
        worker.update(samples(step), step)
        step += 1
    while True:
        tell("state", step, state_digest(worker, step))
        final = checkpoints / f"step-{step}"
        tell("begin", step)
        facts = worker.take_snapshot({"step": step})
        writer = threading.Thread(target=write, args=(worker, final, facts, tell))
        writer.start()
        worker.update(samples(step), step)
        writer.join()
        step += 1


def state_digest(worker: LearnerWorker, step: int) -> str:
    """Of all that a checkpoint holds."""
    worker.take_snapshot({"step": step})
    snapshot = worker._snapshot
    assert snapshot is not None
    states = {name: copy.states for name, copy in snapshot.states.items()}
    return digest([states, snapshot.rank_state, json.loads(snapshot.learner_json)])


def write(worker: LearnerWorker, final: Path, facts: SnapshotFacts, tell: Tell) -> None:
    """The part of a save that goes on beside training, as ``actors.pools.checkpoint_saver`` does it."""
    partial = begin(final, facts.num_bytes)
    files = worker.write_snapshot(str(partial))
    commit(partial, final, {"step": checkpoint_step(final), "num_ranks": 1, "zero_stage": facts.zero_stage}, files)
    prune(final.parent, KEEP)
    tell("end", checkpoint_step(final))


@dataclass
class Record:
    """What the rounds have shown.

    Attributes:
        digests: of the state at each step, told before it was saved.
        complete: newest step reported complete.
        save_s: how long saves have taken.
        rows: per round, where the kill hit.
    """

    digests: dict[int, str] = field(default_factory=dict)
    complete: int = 0
    save_s: list[float] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def where(checkpoints: Path, step: int, ended: bool) -> str:
    """What the kill left, in words.

    Args:
        ended: whether the save was reported complete before it.
    """
    if ended:
        return AFTER
    partials = list(checkpoints.glob(f".step-{step}.*.partial"))
    if (checkpoints / f".step-{step}.replaced").exists():
        return "at or between the renames"
    if any((partial / MANIFEST).exists() for partial in partials):
        return "manifest written, not in place"
    if any(any(partial.iterdir()) for partial in partials):
        return "files half written"
    return "folder made, nothing written" if partials else "copying, or in place and not reported"


def play(record: Record, checkpoints: Path, model: Path, rng: random.Random, rehearsal: bool) -> None:
    """One round."""
    again = rng.random() < 0.25
    process = ForkedProcess(lambda tell: child(checkpoints, model, again, tell))
    messages = []
    begun: dict[str, Any] | None = None
    kill_at = float("inf")
    usual = statistics.median(record.save_s[-20:] or [0.0])
    deadline = time.monotonic() + ROUND_TIMEOUT_S
    while (now := time.monotonic()) < min(kill_at, deadline):
        found = process.message(min(kill_at, deadline) - now)
        if found is None:
            continue
        messages.append(found)
        if found["what"] == "begin" and begun is None:
            begun = found
            kill_at = deadline if rehearsal else time.monotonic() + rng.uniform(0.0, usual)
        if found["what"] == "end" and rehearsal:
            break
    messages += process.kill()
    note(record, messages)
    if begun is None:
        record.failures.append("no save was begun in time")
    elif not rehearsal:
        ended = any(found["what"] == "end" and found["step"] == begun["step"] for found in messages)
        record.rows.append(where(checkpoints, begun["step"], ended))


def note(record: Record, messages: list[dict[str, Any]]) -> None:
    """Check what a round has loaded, and keep what it has saved."""
    began: dict[int, float] = {}
    for found in messages:
        step, what = found["step"], found["what"]
        if what == "loaded":
            if step < record.complete:
                record.failures.append(f"loaded step {step}, but step {record.complete} was complete")
            if step > 0 and record.digests.get(step) != found["digest"]:
                record.failures.append(f"step {step} was saved as {record.digests.get(step)}, loaded {found['digest']}")
            if found["skipped"]:
                record.failures.append(f"an incomplete checkpoint is visible: {found['skipped']}")
        elif what == "state":
            record.digests[step] = found["digest"]
        elif what == "begin":
            began[step] = found["time"]
        elif what == "end":
            record.complete = max(record.complete, step)
            record.save_s.append(found["time"] - began[step])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for module in PRELOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "processes are forked from one thread only"
    rng, record, start = random.Random(options.seed), Record(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="checkpoint-kills-") as scratch:
        model, checkpoints = Path(scratch) / "model", Path(scratch) / "checkpoints"
        if os.fork() == 0:  # so that this process has run no torch code when it forks the others
            make_model(model)
            os._exit(0)
        assert os.wait()[1] == 0
        play(record, checkpoints, model, rng, rehearsal=True)  # shows how long a save takes
        while not record.failures and sum(row != AFTER for row in record.rows) < options.kills:
            play(record, checkpoints, model, rng, rehearsal=False)
        play(record, checkpoints, model, rng, rehearsal=True)  # checks the last kill
    print(f"{'where the kill hit':40} kills")
    for place, number in Counter(record.rows).most_common():
        print(f"{place:40} {number:5}")
    seconds = f"{time.monotonic() - start:.0f} s, save {1e3 * sum(record.save_s) / max(1, len(record.save_s)):.0f} ms"
    for failure in record.failures:
        print(f"FAILED: {failure}")
    verdict = "FAILED" if record.failures else "the newest complete checkpoint always loaded, equal to what was saved"
    inside = sum(row != AFTER for row in record.rows)
    print(f"{inside} kills during saves in {seconds}; newest step {record.complete}: {verdict}")
    return 1 if record.failures else 0


if __name__ == "__main__":
    sys.exit(main())

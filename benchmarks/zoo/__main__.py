"""``python -m benchmarks.zoo [NAME ...]``: the table of docs/gpus.md, or some of its lines.

Tiny models with made-up weights go from a learner's DeepSpeed engine to a vLLM engine, twice with all weights changed,
and are compared token by token; about 8 s each on one core. Exit status 1 if one that is not refused is off by more
than 1e-3 (of the engine that was started with the same weights, where vLLM computes in bfloat16 only).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from rollout.sampling.vllm_options import engine_environment

os.environ.update(engine_environment(on_gpu=False))
os.environ.update(HF_HUB_OFFLINE="1", DS_ACCELERATOR="cpu", VLLM_LOGGING_LEVEL="ERROR")

from transformers import AutoConfig

from benchmarks.zoo.families import ZOO, Member, make
from benchmarks.zoo.round_trip import IN_BFLOAT16, apart, round_trip
from cluster.check.families import require_reachable
from rollout.component import UserError

TOLERANCE = 1e-3


def line_of(member: Member, folder: Path) -> tuple[str, bool]:
    """A line of the table, and whether all is as it should be."""
    in_bfloat16 = member.kind in IN_BFLOAT16
    apart(_make, member, folder / "looked-at")
    config = AutoConfig.from_pretrained(folder / "looked-at")
    try:
        require_reachable(config, member.name, "bfloat16" if in_bfloat16 else "float32", on_gpu=False)
    except UserError as error:
        return f"| {member.name} | refused: {str(error).split('cannot be trained: ')[1]} | | | |", True
    try:
        trip = round_trip(member, folder / "model")
    except RuntimeError as error:
        return f"| {member.name} | failed: {error} | | | |", False
    numbers = (trip.from_disk, trip.after_sync, trip.from_fresh)
    name = f"{member.name} (bfloat16)" if in_bfloat16 else member.name
    judged = trip.from_fresh if in_bfloat16 else max(numbers)
    cells = " | ".join(f"{number:.1e}" for number in numbers)
    return f"| {name} | {cells} | {trip.moved:.1f} |", judged <= TOLERANCE


def _make(member: Member, folder: Path) -> None:
    make(member, folder)


def main(names: list[str]) -> int:
    """Print the table; returns the exit status."""
    # Into this process, so that each of its forks has them already.
    import deepspeed  # noqa: F401
    import vllm.engine.arg_utils
    import vllm.v1.engine.llm_engine  # noqa: F401

    if unknown := set(names) - {member.name for member in ZOO}:
        print(
            f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(m.name for m in ZOO)}", file=sys.stderr
        )
        return 2
    print("| model | from disk | after two syncs | from a fresh engine | moved by |\n|---|---|---|---|---|", flush=True)
    is_good = True
    for member in ZOO:
        if not names or member.name in names:
            with tempfile.TemporaryDirectory() as scratch:
                line, is_fine = line_of(member, Path(scratch))
            print(line, flush=True)
            is_good = is_good and is_fine
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The process in which the cells of a study run, one after the other: ``python -m cluster.study.slot``.

It reads a line of JSON for each cell from standard input and answers with one on standard output; whatever else is
printed goes to standard error. When standard input ends its driver is gone, and so is this process, at once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

from cluster.config.run_config import RunConfig


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, requests), daemon=True).start()
    first = json.loads(requests.get())
    if first["processes"] == "shared":
        _set_environment()
        asyncio.run(_serve_shared(first, requests, answers))
    else:
        _serve_runs(first, requests, answers)


def _read(lines: IO[str], requests: queue.Queue[str]) -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)  # whatever it is doing: nobody is left who would take the answer


def _set_environment() -> None:
    """What engine and learner expect of a process of their own, before torch is imported."""
    from learner.config import learner_environment
    from rollout.sampling.vllm_options import engine_environment

    os.environ.update(engine_environment(on_gpu=False))
    os.environ.update(learner_environment(on_gpu=False))


async def _serve_shared(request: dict[str, Any], requests: queue.Queue[str], answers: IO[str]) -> None:
    """Cells in this process, all with the engine that the first of them needs."""
    gc.disable()  # until vLLM and torch are loaded, which leaves little to collect
    from actors.processes.garbage import keep_what_is_there
    from cluster.study.inline_run import Workshop, run_inline

    workshop: Workshop | None = None
    while True:
        try:
            config = RunConfig.model_validate(request["config"])
            if workshop is None:
                workshop = Workshop(config)
                keep_what_is_there()
                gc.enable()
            begin = time.process_time()
            await run_inline(config, Path(request["folder"]), workshop)
            _answer(answers, cpu_s=round(time.process_time() - begin, 3))
        except Exception as error:  # the cell's end, and the reason is its result
            _answer(answers, error)
        request = json.loads(await asyncio.to_thread(requests.get))


def _serve_runs(request: dict[str, Any], requests: queue.Queue[str], answers: IO[str]) -> None:
    from cluster.run.start import run_training

    while True:
        try:
            stopped_by = run_training(RunConfig.model_validate(request["config"])).stopped_by
        except Exception as error:  # as above
            _answer(answers, error)
        else:
            _answer(answers, None if stopped_by is None else RuntimeError(f"stopped by signal {stopped_by}"))
        request = json.loads(requests.get())


def _answer(answers: IO[str], error: Exception | None = None, cpu_s: float | None = None) -> None:
    if error is not None:
        traceback.print_exception(error)
    text = None if error is None else f"{type(error).__name__}: {error}"
    answers.write(json.dumps({"error": text, "cpu_s": cpu_s}) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()

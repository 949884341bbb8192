"""Planted faults in real runs: is what `dvpo explain` names first the fault? And does it name nothing in healthy runs?

    python -m benchmarks.blind_diagnosis run FOLDER [--only NAME ...] [--seed N]    # what is there is not made again
    python -m benchmarks.blind_diagnosis table FOLDER

Twenty faults, two variants of ten kinds, and twenty healthy runs of four kinds with five seeds. Each is a run of the
demo's task with models/demo, smaller than the demo: 30 steps of 64 trajectories. Runs that share
model and sampling options share a process and its engine, as the cells of a study do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.config.run_config import RunConfig, parse_config
from cluster.config.yaml_source import read_source
from cluster.report.diagnosis.diagnose import diagnose
from cluster.report.run_record import read_run
from rollout.component import ComponentSpec, build
from rollout.rewards.base import Abstain
from rollout.sampling.vllm_options import engine_environment
from rollout.tasks import TASKS
from rollout.tasks.base import Task
from rollout.trajectory import Prompt, Trajectory

MODEL = Path("models/demo")
HEALTHY = ""
DONE = "done.json"
BASE: dict[str, Any] = {
    "reward.noise": [],
    "rollout.num_workers": 1,
    "training.num_steps": 30,
    "training.prompts_per_step": 64,
    "training.max_staleness": 0,
    "training.eval_every_steps": 10,
    "training.num_eval_prompts": 100,
    "training.checkpoint_every_steps": 0,
    "logging.trajectory_samples_per_step": 8,
    "logging.tensorboard": False,
}
GOLD = {"reward.gold": [{"type": "exact_match"}]}
HERE = "benchmarks.blind_diagnosis"


def answered(trajectory: Trajectory) -> str:
    """What follows the last equals sign."""
    return trajectory.response_text.rpartition("=")[2].strip()


def knows_small_numbers(prompt: Prompt, trajectory: Trajectory) -> float:
    """A verifier that does not know the digits from 4 on."""
    return float(answered(trajectory) == prompt.reference and answered(trajectory) in "0123")


def loves_length(prompt: Prompt, trajectory: Trajectory) -> float:
    """A judge that gives a little for the right answer, and something for each token."""
    return 0.5 * (answered(trajectory) == prompt.reference) + 0.05 * trajectory.num_response_tokens


def judges_no_subtraction(prompt: Prompt, trajectory: Trajectory) -> float:
    """A verifier that abstains where there is more than one minus sign."""
    if prompt.messages[-1]["content"].count("-") > 1:
        raise Abstain("more than one subtraction")
    return float(answered(trajectory) == prompt.reference)


@dataclass(frozen=True)
class Planted:
    """One run.

    Attributes:
        cause: what should be named first; empty for a healthy run.
        changes: of the configuration.
        template: text that replaces another one in the model's chat template.
        data: training questions of a file, and how many of the evaluation's are among them.
    """

    cause: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    template: tuple[str, str] | None = None
    data: tuple[int, int] | None = None


def noise(**options: Any) -> dict[str, Any]:
    """One noise model."""
    return {"reward.noise": [options]}


def reward(name: str) -> dict[str, Any]:
    """A reward of this file, with the true one to compare with."""
    return {"reward.functions": [{"type": f"{HERE}:{name}"}], **GOLD}


def pattern(text: str) -> dict[str, Any]:
    """A grader that looks for answers where this model does not write them."""
    return {"reward.functions": [{"type": "exact_match", "answer_pattern": text}]}


MISSES = noise(type="asymmetric_flip", false_positive_rate=0.0, false_negative_rate=0.6)
CONTENT, OPENING = "message['content']", "{{ '<|assistant|>' }}"
FAULTS = {
    "false_negatives-a": Planted("false_negatives", MISSES),
    "false_negatives-b": Planted("false_negatives", reward("knows_small_numbers")),
    "unreadable_references-a": Planted("unreadable_references", pattern(r"Answer: (.*)$")),
    "unreadable_references-b": Planted("unreadable_references", pattern(r"\\boxed\{([^}]*)\}")),
    "broken_template-a": Planted("broken_template", template=(CONTENT, CONTENT + "[-4:]")),
    "broken_template-b": Planted("broken_template", template=(OPENING, "")),
    "lr_too_high-a": Planted("lr_too_high", {"learner.policy_lr": 5e-3}),
    "lr_too_high-b": Planted("lr_too_high", {"learner.policy_lr": 3e-2}),
    "lr_too_low-a": Planted("lr_too_low", {"learner.policy_lr": 1e-8}),
    "lr_too_low-b": Planted("lr_too_low", {"learner.policy_lr": 3e-7}),
    "truncation-a": Planted("truncation", {"rollout.sampling.max_response_tokens": 5}),
    "truncation-b": Planted("truncation", {"rollout.sampling.max_response_tokens": 8}),
    "leaking_evaluation-a": Planted("leaking_evaluation", data=(1000, 100)),
    "leaking_evaluation-b": Planted("leaking_evaluation", data=(1000, 10)),
    "missing_scores-a": Planted("missing_scores", noise(type="missing", p=0.4)),
    "missing_scores-b": Planted("missing_scores", reward("judges_no_subtraction")),
    "prompts_repeated-a": Planted("prompts_repeated", data=(8, 0)),
    "prompts_repeated-b": Planted("prompts_repeated", data=(24, 0)),
    "length_bias-a": Planted("length_bias", {**noise(type="length_bias", b=0.5, mean=8.0, std=2.0)}),
    "length_bias-b": Planted("length_bias", reward("loves_length")),
}  # fmt: skip
KINDS = {
    "dvpo": {},
    "flips": noise(type="symmetric_flip", p=0.3),
    "ppo": {"algorithm": "ppo"},
    "grpo": {"algorithm": "grpo", "training.prompts_per_step": 8, "training.samples_per_prompt": 8},
}
RUNS = FAULTS | {
    f"healthy-{kind}-{seed}": Planted(HEALTHY, {**changes, "seed": seed})
    for seed in range(1, 6)
    for kind, changes in KINDS.items()
}


def model_of(planted: Planted, folder: Path) -> Path:
    """The model's folder, with a changed template where that is the fault."""
    if planted.template is None:
        return MODEL.resolve()
    copy = folder / "model"
    shutil.copytree(MODEL, copy, dirs_exist_ok=True)
    template = (copy / "chat_template.jinja").read_text(encoding="utf-8")
    assert planted.template[0] in template
    (copy / "chat_template.jinja").write_text(template.replace(*planted.template), encoding="utf-8")
    return copy.resolve()


def data_of(planted: Planted, folder: Path) -> dict[str, Any]:
    """The task's own questions as files."""
    if planted.data is None:
        return {}
    task = build(ComponentSpec(type="chain"), TASKS, Task, "data.task")
    train, test = list(task.examples("train")), list(task.examples("test"))[:100]
    number, leaked = planted.data
    splits = {"train": [*test[:leaked], *train[: number - leaked]], "test": test}
    for split, examples in splits.items():
        rows = ({"prompt": e.messages[-1]["content"], "answer": e.reference} for e in examples)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    return {"data.task": {"type": "dataset", "train": files["train"], "eval": {"test": files["test"]}}}


def group_of(planted: Planted, name: str) -> str:
    """Runs of one group share a process."""
    own = planted.template is not None or any(key.startswith("rollout.") for key in planted.changes)
    return name if own else "demo"


def config_of(name: str, root: Path, seed: int | None = None) -> RunConfig:
    """The configuration of a run whose folder is there; ``seed`` in place of its own."""
    planted, folder = RUNS[name], root / name
    source = read_source("configs/demo.yaml")
    changes = {**BASE, "name": name, "output_dir": str(root), "model.path": str(model_of(planted, folder))}
    for key, value in {**changes, **data_of(planted, folder), **planted.changes}.items():
        source.assign(key, value, "benchmark")
    if seed is not None:
        source.assign("seed", seed, "benchmark")
    return parse_config(source)


async def run_group(names: list[str], root: Path, seed: int | None = None) -> None:
    """Make runs in this process; the first that fails ends it."""
    # In here: the environment has to be set before torch is imported.
    from cluster.study.inline_run import Workshop, run_inline

    workshop = None
    for name in names:
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        config, error = config_of(name, root, seed), ""
        workshop = workshop or Workshop(config)
        try:
            await run_inline(config, folder, workshop)
        except Exception as failure:  # a planted fault may end its run, as it would end a user's
            error = f"{type(failure).__name__}: {failure}"
            (folder / "error.txt").write_text(error, encoding="utf-8")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / DONE).write_text(json.dumps({"error": error}), encoding="utf-8")
        print(name, error or "done", flush=True)
        if error:
            return


def run(root: Path, only: list[str], seed: int | None = None) -> None:
    """Make all runs that are not there, group by group."""
    while True:
        left = [name for name in (only or RUNS) if not (root / name / DONE).exists()]
        if not left:
            return
        group = group_of(RUNS[left[0]], left[0])
        names = [name for name in left if group_of(RUNS[name], name) == group]
        with_seed = [] if seed is None else ["--seed", str(seed)]
        subprocess.run([sys.executable, "-m", HERE, "group", str(root), "--only", *names, *with_seed], check=False)
        if not (root / names[0] / DONE).exists():
            raise SystemExit(f"{names[0]} was not made")


def rows(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Name, planted cause, and named causes, of the runs that are there."""
    for name, planted in RUNS.items():
        if (root / name / DONE).exists():
            yield name, planted.cause, [finding.cause for finding in diagnose(read_run(root / name)).findings]


def table(root: Path) -> None:
    """Print a table, and what it comes to."""
    found = list(rows(root))
    print("| run | named first | then |\n|---|---|---|")
    for name, cause, named in found:
        first, *then = named or ["nothing"]
        mark = "" if first == (cause or "nothing") else " ✗"
        print(f"| {name} | {first}{mark} | {', '.join(then)} |")
    faults = [(cause, named) for _, cause, named in found if cause]
    healthy = [named for _, cause, named in found if not cause]
    right = sum(named[:1] == [cause] for cause, named in faults)
    print(
        f"\nfaults: {right} of {len(faults)} named first; healthy: {sum(map(bool, healthy))} of {len(healthy)} accused"
    )


def main() -> None:
    """The command line."""
    from learner.config import learner_environment  # not at the top: it loads Ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table", "group"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], choices=list(RUNS))
    parser.add_argument("--seed", type=int, help="of every run, in place of its own; in a folder of its own")
    given = parser.parse_args()
    root = given.folder.resolve()
    if given.command == "group":
        os.environ.update(engine_environment(on_gpu=False))
        os.environ.update(learner_environment(on_gpu=False))
        asyncio.run(run_group(given.only, root, given.seed))
    elif given.command == "run":
        run(root, given.only, given.seed)
    else:
        table(root)


if __name__ == "__main__":
    main()

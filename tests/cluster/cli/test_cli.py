"""What the commands do with what they are given; the run itself is replaced by a recorder."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from cluster.config.run_config import RunConfig
from cluster.display.progress import RunSummary
from rollout.component import UserError

Dvpo = Callable[..., Result]


class Recorder:
    """Stands in for ``run_training``: remembers its arguments, then returns or raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[RunConfig, str | None]] = []
        self.outcome: RunSummary | BaseException = RunSummary()

    def __call__(self, config: RunConfig, resume: str | None = None, **_: object) -> RunSummary:
        self.calls.append((config, resume))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("cluster.run.start.run_training", recorder)
    return recorder


def test_train_runs_what_was_checked(run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    result = dvpo("train", run_file, "--set", "training.num_steps=7", "--set", "name=other")
    assert result.exit_code == 0, result.output
    ((config, resume),) = training.calls
    assert (config.training.num_steps, config.name, resume) == (7, "other", None)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (RunSummary(), 0),
        (RunSummary(stopped_by=signal.SIGINT), 130),
        (RunSummary(stopped_by=signal.SIGTERM), 143),
        (KeyboardInterrupt(), 130),
        (UserError("the cluster is too small"), 2),
        (RuntimeError("a worker died"), 1),
    ],
    ids=str,
)
def test_exit_status(
    outcome: RunSummary | BaseException, status: int, run_file: Path, dvpo: Dvpo, training: Recorder
) -> None:
    training.outcome = outcome
    result = dvpo("train", run_file)
    assert result.exit_code == status
    assert "Traceback" not in result.output
    if status == 143:
        assert "stopped by SIGTERM" in result.stderr
    if status == 2:
        assert result.stderr == "error: the cluster is too small\n"


def test_a_failed_run_says_why_and_keeps_the_traceback(run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    Path("runs/small").mkdir(parents=True)  # as run_training does
    training.outcome = RuntimeError("rollout-1: out of memory")
    result = dvpo("train", run_file)
    assert result.exit_code == 1
    assert result.stderr == "error: rollout-1: out of memory [run-failed]\nerror: details: runs/small/error.txt\n"
    assert "Traceback" in Path("runs/small/error.txt").read_text()


@pytest.mark.parametrize(("flags", "resume"), [([], None), (["--resume"], "auto"), (["--resume", "auto"], "auto")])
def test_resume(flags: list[str], resume: str | None, run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    assert dvpo("train", run_file, *flags).exit_code == 0
    assert [call[1] for call in training.calls] == [resume]


def test_resume_from_a_path(run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    Path("runs/small/checkpoints/step-4").mkdir(parents=True)
    Path("runs/small/metrics.jsonl").touch()
    assert dvpo("train", run_file, "--resume", "runs/small/checkpoints/step-4").exit_code == 0
    assert [call[1] for call in training.calls] == ["runs/small/checkpoints/step-4"]
    assert Path("runs/small/metrics.jsonl").exists()


def test_overwrite_deletes_a_run_and_nothing_else(run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    folder = Path("runs/small")
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl"):
        (folder / name).touch()
    assert dvpo("train", run_file, "--overwrite", "--dry-run").exit_code == 0
    assert folder.exists()
    assert dvpo("train", run_file, "--overwrite").exit_code == 0
    assert not folder.exists()
    folder.mkdir()
    (folder / "thesis.txt").touch()  # not a run: left alone
    assert dvpo("train", run_file, "--overwrite").exit_code == 0
    assert (folder / "thesis.txt").exists()


def test_dry_run_prints_the_plan_and_starts_nothing(run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    result = dvpo("train", run_file, "--dry-run")
    assert result.exit_code == 0
    assert training.calls == []
    assert "one step = 8 prompts x 2 = 16 trajectories, 1 optimiser step" in result.stdout
    assert not Path("runs").exists()


def test_check_prints_the_plan_and_warnings(run_file: Path, dvpo: Dvpo) -> None:
    result = dvpo("check", run_file, "--set", "training.prompts_per_step=100")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "ok"
    assert "= 200 trajectories" in result.stdout
    place = "--set training.prompts_per_step=100"
    assert result.stderr.startswith(f"warning: {place}: training.prompts_per_step: 100 is more than the 64 training")
    assert sorted(path.name for path in run_file.parent.iterdir()) == ["small.yaml"]  # nothing was made


@pytest.mark.parametrize("command", ["check", "train"])
def test_what_changes_nothing_is_said_before_a_run(
    command: str, run_file: Path, dvpo: Dvpo, training: Recorder
) -> None:
    result = dvpo(command, run_file, "--set", "algorithm=backward-ppo")
    assert result.exit_code == 0, result.output
    first, second = [line for line in result.stdout.splitlines() if line.startswith("remark: ")]
    place = "--set algorithm=backward-ppo"
    assert first.startswith(f"remark: {place}: algorithm.reward_correction.0: noise_corrected changes nothing here: ")
    assert second.startswith(
        f"remark: {place}: algorithm.num_minibatches: one epoch of one mini-batch is one optimiser"
    )
    assert len(training.calls) == (command == "train")


def test_check_may_be_asked_while_a_run_goes_on(run_file: Path, dvpo: Dvpo) -> None:
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/metrics.jsonl").touch()
    assert dvpo("check", run_file).exit_code == 0


def test_classes_beside_the_configuration_are_found(run_file: Path, dvpo: Dvpo, training: Recorder) -> None:
    lines = (
        "from rollout.rewards.base import Reward",
        "class Long(Reward):",
        "    async def __call__(self, prompt, trajectory):",
        "        return float(trajectory.num_response_tokens)",
    )
    Path("my_rewards_of_test_cli.py").write_text("\n".join(lines))
    result = dvpo("train", run_file, "--set", 'reward.functions.1.type="my_rewards_of_test_cli:Long"')
    assert result.exit_code == 0, result.output
    assert [spec.type for spec in training.calls[0][0].reward.functions] == [
        "exact_match",
        "my_rewards_of_test_cli:Long",
    ]


@pytest.mark.parametrize("inside", ["", "policy"])
def test_eval_takes_a_checkpoint_or_a_model_folder(
    inside: str, run_file: Path, tiny_model: Path, dvpo: Dvpo, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def record(config: RunConfig, model: Path, splits: tuple[str, ...], output: Path | None, _: object) -> list[Any]:
        calls.append((config.model.path, model, splits, output))
        return [("clean accuracy (test)", "0.750")]

    monkeypatch.setattr("cluster.run.evaluate.run_evaluation", record)
    folder = Path("step-4") / inside
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tiny_model)
    result = dvpo("eval", "step-4", "--config", run_file, "--split", "test", "--output", "answers.jsonl")
    assert result.exit_code == 0, result.output
    assert calls == [(str(folder), folder, ("test",), Path("answers.jsonl"))]
    assert result.stdout == "clean accuracy (test)  0.750\n"
    assert dvpo("eval", "step-4", "--config", run_file).exit_code == 0
    assert calls[1][2][0] == "test" and len(calls[1][2]) > 1


def test_warmstart_passes_its_options_on(dvpo: Dvpo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.warmstart.warmstart import WarmstartReport

    calls: list[Any] = []

    def record(task: Any, output: Path, config: Any, on_step: Callable[[int, int, float], None]) -> WarmstartReport:
        calls.append((task.name, output, config.seed, config.num_steps))
        for step in (1, 50, 51):
            on_step(step, 51, 0.5)
        return WarmstartReport(output, 123456, {"accuracy": {"test": 0.5}}, 0.25, 60.0)

    monkeypatch.setattr("cluster.warmstart.warmstart.warmstart", record)
    result = dvpo("warmstart", "--output", tmp_path / "m", "--seed", 3, "--num-steps", 51)
    assert result.exit_code == 0, result.output
    assert calls == [("chain", tmp_path / "m", 3, 51)]
    assert result.stdout.splitlines() == [
        "step 50/51  loss 0.500",
        "step 51/51  loss 0.500",
        f"{tmp_path / 'm'}: 123,456 parameters, loss 0.250, 60 s",
        "greedy accuracy on held-out questions: test 0.500",
    ]


def test_warmstart_of_a_task_without_demonstrations(run_file: Path, dvpo: Dvpo) -> None:
    lines = (
        "from rollout.tasks.base import Task",
        "class Silent(Task):",
        "    splits = ('test',)",
        "    def examples(self, split): return []",
    )
    Path("silent_task_of_test_cli.py").write_text("\n".join(lines))
    result = dvpo("warmstart", "--task", "silent_task_of_test_cli:Silent", "--output", "m")
    assert result.exit_code == 2
    assert "so no starting model can be made for it" in result.stderr
    assert not Path("m").exists()


@pytest.mark.parametrize("command", ["", "train", "check", "eval", "schema", "doctor", "warmstart", "ledger"])
def test_help_reads_well(command: str, dvpo: Dvpo) -> None:
    result = dvpo(*filter(None, [command]), "--help")
    assert result.exit_code == 0
    assert all(len(line) <= 110 for line in result.output.splitlines())
    assert "..." not in result.output.replace("ARGS]...", "").replace(".../checkpoints", "").replace("name=...", "")
    if command in ("train", "check", "eval"):
        assert "--set KEY=VALUE" in result.output


def test_version(dvpo: Dvpo) -> None:
    from cluster import __version__

    assert dvpo("--version").output == f"dvpo, version {__version__}\n"

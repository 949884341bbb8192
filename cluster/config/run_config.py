"""RunConfig: everything a run needs to know, in one typed tree read from one YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from actors.guards.guards import GuardsConfig
from actors.guards.trust_config import TrustConfig
from actors.loop.config import TrainingConfig
from actors.recovery import RecoveryConfig
from cluster.config.renamed import rename_keys
from cluster.config.secrets import refuse_secrets
from cluster.config.yaml_source import ConfigSource, read_source
from cluster.config.yaml_values import dump_yaml
from learner.config import LearnerConfig, ModelConfig
from learner.engine import deepspeed_options
from learner.update.limits import TraceLimits
from rollout.component import ComponentSpec, KeyPath, PathText, StrictModel, UserError, dotted, validation_problems
from rollout.config import DataConfig, RewardConfig, RolloutConfig
from rollout.sampling.engine_args import refusals
from rollout.sampling.evaluation import EvaluationConfig


class AlgorithmSpec(BaseModel):
    """The algorithm as written in YAML: a name, or a mapping of ``preset`` or ``type`` and options of it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    preset: str | None = Field(None, description="A whole published method by name: algorithm, options and defaults.")
    type: str | None = Field(
        None, description="Built-in algorithm, or 'package.module:Class' of a class that can be imported."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """``algorithm: dvpo`` is short for ``algorithm: {preset: dvpo}``."""
        if isinstance(value, str):
            return {"type" if ":" in value else "preset": value}
        return value

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.preset is None) == (self.type is None):
            raise ValueError("give either 'preset: NAME' or 'type: NAME', for example 'preset: dvpo'")
        return self

    @property
    def name(self) -> str:
        """What ``learner.algorithms.build_algorithm`` is asked for."""
        return self.preset or self.type or ""

    @property
    def options(self) -> dict[str, Any]:
        """Options that override those of the preset or the defaults of the type."""
        return dict(self.model_extra or {})


class ClusterConfig(StrictModel):
    """The machines: which Ray cluster, how much of it each process asks for, and how long to wait for it."""

    address: str | None = Field(
        None,
        pattern=r"^(auto|[^\s:/]+:\d{1,5})$",
        description="Ray cluster to join, 'auto' or HOST:PORT; none starts a private one on this machine.",
    )
    num_cpus: int | None = Field(
        None, ge=1, le=65_536, description="CPUs the private Ray may hand out; none is all that this machine has."
    )
    object_store_mib: int | None = Field(
        None,
        ge=96,
        le=16_777_216,
        description="Shared memory of the private Ray's object store, in MiB; by default what the run needs: two "
        "copies of the policy's weights in float32 and the trajectories on their way, at least 256.",
    )
    metrics_port: int | None = Field(
        None,
        ge=1024,
        le=65_535,
        description="Port of the private Ray's metrics for Prometheus; by default a free one. docs/monitoring.md.",
    )
    preload: bool = Field(
        True,
        description="Fork the worker processes of a private Ray from one that has loaded vLLM, DeepSpeed and torch; "
        "not done with GPUs.",
    )
    cpus_per_rollout_worker: float = Field(
        1.0,
        gt=0.0,
        le=4096.0,
        description="CPUs each rollout worker asks for; on a CPU, an engine computes with a thread for each whole one.",
    )
    gpus_per_rollout_worker: float = Field(0.0, ge=0.0, le=64.0, description="GPUs each rollout worker asks for.")
    cpus_per_learner_worker: float = Field(
        1.0,
        gt=0.0,
        le=4096.0,
        description="CPUs each learner rank asks for, and computes with a thread for each whole one.",
    )
    gpus_per_learner_worker: float = Field(0.0, ge=0.0, le=1.0, description="GPUs each learner rank asks for.")
    start_timeout_s: float = Field(600.0, gt=0.0, description="Longest wait for all processes to be ready, in seconds.")
    step_timeout_s: float = Field(1800.0, gt=0.0, description="Longest time without any progress, in seconds.")
    shutdown_timeout_s: float = Field(30.0, gt=0.0, description="Longest wait for processes to end, in seconds.")


class LoggingConfig(StrictModel):
    """What a run writes and shows besides metrics.jsonl, which is always written."""

    tensorboard: bool = Field(True, description="Write TensorBoard events.")
    sinks: tuple[ComponentSpec, ...] = Field(
        (),
        description="Trackers (wandb, mlflow, trackio), and sinks of your own: classes that derive from "
        "actors.recording.sinks.FurtherSink, with options.",
    )
    trajectory_samples_per_step: int = Field(
        4, ge=0, le=1_000_000, description="Trajectories of each step written to trajectories/ for reading."
    )
    token_trace_kib: int = Field(
        64,
        ge=0,
        le=1_048_576,
        description="Most KiB a step that these trajectories also hold of each token: text, advantage, "
        "log-probabilities and quantiles of its value, for `dvpo report`. It costs a forward pass; 0 for none.",
    )
    keep_trajectory_files: int = Field(
        1000, ge=1, le=1_000_000, description="Newest steps whose sampled trajectories stay on disk."
    )
    kl_to_start_every: int = Field(
        10,
        ge=0,
        le=10_000_000,
        description="Steps between two measurements of policy/kl_to_start, on up to 16 trajectories of the batch; 0 is "
        "none. Without a frozen reference the starting model is loaded for each: time, and memory for one more copy.",
    )
    progress: Literal["auto", "plain", "rich", "none"] = Field(
        "auto", description="Display: 'rich' is live, 'plain' one line a step; 'auto' is live on a terminal."
    )

    def trace_limits(self) -> TraceLimits:
        """What the learner needs to know of it."""
        return TraceLimits(self.trajectory_samples_per_step, self.token_trace_kib * 1024)


class RunConfig(StrictModel):
    """One training run."""

    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the run and of its folder in output_dir; by default that of the configuration file.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed that every random stream of the run derives from.")
    output_dir: PathText = Field("runs", min_length=1, description="Folder that holds the folders of runs.")
    model: ModelConfig = Field(description="The starting model.")
    data: DataConfig = Field(default_factory=DataConfig, description="The task or dataset.")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="Rollout workers and sampling.")
    reward: RewardConfig = Field(default_factory=RewardConfig, description="Scoring, and injected noise.")
    algorithm: AlgorithmSpec = Field(
        default_factory=lambda: AlgorithmSpec(preset="dvpo"),
        description="A preset's name, or a mapping {preset: NAME or type: NAME, option: value}.",
    )
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="Optimisation.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Steps, batch and schedule.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="What is measured besides.")
    guards: GuardsConfig = Field(default_factory=GuardsConfig, description="Numbers that go wrong.")
    trust: TrustConfig = Field(default_factory=TrustConfig, description="How far the reward can be trusted, online.")
    recovery: RecoveryConfig = Field(default_factory=RecoveryConfig, description="Processes that die or hang.")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="Machines and processes.")
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="What is written and shown.")

    @property
    def run_dir(self) -> Path:
        """Folder of the run: ``output_dir/name``."""
        return Path(self.output_dir) / self.name

    @property
    def is_reproducible(self) -> bool:
        """Whether each response has a random stream of its own; see :attr:`RolloutConfig.reproducible`."""
        wanted = self.rollout.reproducible
        return self.training.max_staleness == 0 if wanted is None else wanted

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        # Runs only if every value is right by itself. All conflicts are one error, each with a key that the user can
        # look up.
        problems = list(self._conflicts())
        if problems:
            text = "; ".join(f"{dotted(path)}: {message}" for path, message in problems)
            raise PydanticCustomError("cross_field", "{text}", {"text": text, "problems": problems})
        return self

    def _conflicts(self) -> Iterable[tuple[KeyPath, str]]:
        """Values that are right by themselves and wrong together: the key to change, and why."""
        rollout, learner, training, cluster = self.rollout, self.learner, self.training, self.cluster
        if rollout.sampling.temperature == 0.0:
            yield (
                ("rollout", "sampling", "temperature"),
                "must be above 0 for training: greedy samples carry no exploration (evaluation has its own settings)",
            )
        yield from rollout.conflicts()
        yield from self.evaluation.conflicts(rollout)
        if training.trajectories_per_step < learner.num_workers:
            yield (
                ("learner", "num_workers"),
                f"one step has {training.trajectories_per_step} trajectories, too few for {learner.num_workers} ranks",
            )
        if learner.critic_warmup_steps >= training.num_steps:
            yield (
                ("learner", "critic_warmup_steps"),
                f"{learner.critic_warmup_steps} leaves none of the {training.num_steps} steps (training.num_steps) "
                "for the policy",
            )
        if cluster.address is not None and cluster.num_cpus is not None:
            yield ("cluster", "num_cpus"), "only for a private Ray; remove it or cluster.address"
        if cluster.address is not None and cluster.metrics_port is not None:
            yield ("cluster", "metrics_port"), "only for a private Ray; here it is an option of `ray start`"
        gpus, shards = cluster.gpus_per_rollout_worker, rollout.tensor_parallel_size
        if (gpus > 1.0 or shards > 1) and gpus != shards:
            yield (
                ("cluster", "gpus_per_rollout_worker"),
                f"must equal rollout.tensor_parallel_size = {shards}, the GPUs that share one engine (got {gpus:g})",
            )
        if gpus > 0.0 and rollout.engine_process == "worker":
            yield (
                ("rollout", "engine_process"),
                "'worker' is for engines on CPU, whose requests need no processor beside the GPU; use 'auto' or 'own'",
            )
        for name, why in refusals(rollout.engine_args, on_gpu=gpus > 0.0):
            yield ("rollout", "engine_args", name), why
        for path, why in deepspeed_options.refusals(learner.deepspeed):
            yield ("learner", "deepspeed", *path), why
        yield from self._label_conflicts()
        if self.reward.deadline_s >= cluster.step_timeout_s:
            longest = f"{self.reward.deadline_s:g} s with {self.reward.max_retries} retries and the pauses before them"
            yield (
                ("reward", "timeout_s"),
                f"a score may take {longest}; that must be below cluster.step_timeout_s = {cluster.step_timeout_s:g}",
            )

    def _label_conflicts(self) -> Iterable[tuple[KeyPath, str]]:
        """What does not go with labels by vote."""
        reward = self.reward
        if reward.pseudo_labels is None:
            return
        if self.training.samples_per_prompt < 2:
            yield ("training", "samples_per_prompt"), "reward.pseudo_labels needs at least 2 samples that can vote"
        if reward.noise:
            yield ("reward", "noise"), "goes with scores of reward.functions, not with reward.pseudo_labels; remove one"
        if reward.error_reward != "drop":
            yield (
                ("reward", "error_reward"),
                "must be 'drop' with reward.pseudo_labels: a sample that was lost has no answer and no score",
            )


def parse_config(source: ConfigSource) -> RunConfig:
    """Validate the values of a configuration file.

    Raises:
        UserError: one line for each unknown key, wrong value or conflict, each with its file and line; a key under
            its present and its former name; or a secret.
    """
    refuse_secrets(source)
    rename_keys(source)
    data = dict(source.data)
    # The file's name, made fit for a folder.
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source.file).stem).lstrip("-._") or "run")
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise UserError(source.describe(validation_problems(error, RunConfig))) from error


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a run's configuration from YAML and apply ``a.b=value`` overrides.

    Raises:
        UserError: the file cannot be read, or a key or value is wrong; the message names file, line and key.
    """
    return parse_config(read_source(path, overrides))


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, every default spelled out; :func:`load_config` reads it back to an equal one."""
    data = config.model_dump(mode="json")
    del data["algorithm"]["preset" if config.algorithm.preset is None else "type"]
    return dump_yaml(data)

"""What this machine has (CPUs, GPUs, memory, shared memory), and whether a run fits it. Nothing is started."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.config.run_config import RunConfig
from cluster.run.places.placement import plan
from cluster.run.reward_models import served_models

SHARED_MEMORY = Path("/dev/shm")
"""Where Ray's object store lives on Linux."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Resources of this machine.

    Attributes:
        num_cpus: CPUs this process may use, after affinity and container limits.
        cpu_name: model of the CPU.
        cpu_flags: instruction sets as Linux names them (``avx2``, ``avx512f``, ``amx_bf16``, ...).
        gpu_names: one name a visible GPU.
        memory_available_mib: memory that can be had without swapping; 0 if unknown.
        shared_memory_free_mib: free space in /dev/shm; None if there is no such folder.
        disk_free_mib: free space where runs are written; None if that is not known.
        gpu_mib: memory of each visible GPU; empty if that is not known.
    """

    num_cpus: int
    cpu_name: str
    cpu_flags: frozenset[str]
    gpu_names: tuple[str, ...]
    memory_available_mib: int
    shared_memory_free_mib: int | None
    disk_free_mib: int | None = None
    gpu_mib: tuple[int, ...] = ()


def inspect_machine(runs: Path = Path()) -> Machine:
    """Look at this machine.

    Args:
        runs: folder that runs are written to; it need not be there yet.
    """
    info = _read("/proc/cpuinfo")
    # Every core has the same keys; the last core stands for all.
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    shared = shutil.disk_usage(SHARED_MEMORY).free >> 20 if SHARED_MEMORY.is_dir() else None
    return Machine(
        num_cpus=usable_cpus(),
        cpu_name=values.get("model name", platform.processor() or platform.machine()),
        cpu_flags=frozenset(values.get("flags", "").split()),
        gpu_names=_gpu_facts("name"),
        memory_available_mib=_available_memory_mib(),
        shared_memory_free_mib=shared,
        disk_free_mib=_free_mib(runs),
        gpu_mib=tuple(int(value) for value in _gpu_facts("memory.total") if value.isdigit()),
    )


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, cut to the container's quota where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    # Without a quota the file says "max".
    if quota.isdigit() and period.isdigit():
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def _gpu_facts(what: str) -> tuple[str, ...]:
    """A fact of each NVIDIA GPU that CUDA would show; asked of the driver, so that no CUDA context is made."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if tool is None or visible in ("", "-1"):
        return ()
    command = [tool, f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    names = tuple(line.strip() for line in result.stdout.splitlines() if line.strip()) if result.returncode == 0 else ()
    # CUDA_VISIBLE_DEVICES names GPUs by number or by id: how many there are is all that counts here.
    return names if visible is None else names[: len(visible.split(","))]


def _free_mib(folder: Path) -> int | None:
    """Free space where a folder is, or would be made."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        return shutil.disk_usage(existing).free >> 20
    except OSError:
        return None


def _available_memory_mib() -> int:
    """``MemAvailable`` of Linux, in MiB."""
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) >> 10
    return 0


def _read(path: str) -> str:
    """A small file of the system, or nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def machine_errors(config: RunConfig, machine: Machine) -> list[str]:
    """Resources that a private Ray on ``machine`` could never give, so that the run would wait permanently."""
    cluster = config.cluster
    errors = []
    demand = plan(config, served_models(config))
    cpus, gpus = demand.total("CPU"), demand.total("GPU")
    available = cluster.num_cpus or machine.num_cpus
    # Fractions such as 0.1 do not add up exactly.
    if cpus > available + 1e-6:
        has = f"cluster.num_cpus is {available}" if cluster.num_cpus else f"this machine has {available}"
        errors.append(
            f"cluster.cpus_per_rollout_worker: the run needs {cpus:g} CPUs ({_sum_in_words(config)}), {has}; "
            "lower cluster.cpus_per_rollout_worker or cluster.cpus_per_learner_worker, use fewer workers, or let them "
            f"share by cluster.num_cpus: {math.ceil(cpus)}"
        )
    if gpus > len(machine.gpu_names) + 1e-6:
        errors.append(
            f"cluster.gpus_per_rollout_worker: the run needs {gpus:g} GPUs, this machine has "
            f"{len(machine.gpu_names)}; lower cluster.gpus_per_rollout_worker and cluster.gpus_per_learner_worker, or "
            "join a cluster by cluster.address"
        )
    free, given = machine.shared_memory_free_mib, cluster.object_store_mib
    if free is not None and given is not None and given > free:
        errors.append(
            f"cluster.object_store_mib: {given} MiB do not fit the {free} MiB that are free in /dev/shm; lower it or "
            "make /dev/shm larger"
        )
    return errors


def machine_warnings(config: RunConfig, machine: Machine) -> list[str]:
    """Demands on ``machine`` that can be met but will be slow."""
    cluster = config.cluster
    warnings = []
    demand = plan(config, served_models(config))
    cpus, gpus = demand.total("CPU"), demand.total("GPU")
    if cluster.num_cpus is not None and cpus > machine.num_cpus:
        warnings.append(
            f"cluster.num_cpus: the run needs {cpus:g} CPUs, this machine has {machine.num_cpus}; processes "
            "will share them"
        )
    if machine.gpu_names and gpus == 0:
        warnings.append(
            f"cluster.gpus_per_rollout_worker: this machine has {len(machine.gpu_names)} GPUs and the run uses none; "
            "set it and cluster.gpus_per_learner_worker"
        )
    if cluster.gpus_per_learner_worker == 0 and config.model.dtype == "bfloat16":
        warnings.append("model.dtype: bfloat16 is several times slower than float32 on a CPU")
    return warnings


def _sum_in_words(config: RunConfig) -> str:
    """How the demand for CPUs adds up."""
    cluster = config.cluster
    models = [model.options for model in served_models(config)]
    return (
        f"{config.rollout.fewest_workers} rollout workers x {cluster.cpus_per_rollout_worker:g} + "
        f"{config.learner.num_workers} learner ranks x {cluster.cpus_per_learner_worker:g}"
    ) + "".join(f" + {model.num_workers} reward model workers x {model.num_cpus:g}" for model in models)

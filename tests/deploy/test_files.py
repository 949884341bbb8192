"""Images, KubeRay manifests and the Slurm script: what can be told of them without a cluster of their kind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PINS = dict(line.split("==") for line in (ROOT / "requirements" / "cpu.lock").read_text().split())
STAND_INS = {
    "scontrol": "echo node-1; echo node-2",
    # srun OPTIONS COMMAND: the options all have a value behind "=" or none
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 192.0.2.1",
    "ray": 'echo "ray $*" >> "$LOG"; exec sleep 600',
    "python": """
case "$1" in
  -c) echo 0123456789abcdef ;;
  -)
    cat > /dev/null
    until grep -q "ray start --address" "$LOG"; do sleep 0.05; done  # as the script's own program waits for all
    echo "waited for $3 at $2" >> "$LOG" ;;
  -m)
    echo "run $* at $RAY_ADDRESS with $RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$LOG"
    [[ -n "${ENDS_WITH:-}" ]] && exit "$ENDS_WITH"
    trap 'echo saved >> "$LOG"; exit 143' TERM
    while true; do sleep 0.05; done ;;
esac
""",
}


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a file by their kind."""
    return {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "kuberay" / name).read_text())}


def clusters() -> dict[str, dict[str, Any]]:
    """The specification of a Ray cluster in each file."""
    job = manifests("rayjob.yaml")["RayJob"]["spec"]
    return {"raycluster": manifests("raycluster.yaml")["RayCluster"]["spec"], "rayjob": job["rayClusterSpec"]}


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_every_pod_has_the_token_the_runs_and_shared_memory(name: str) -> None:
    spec = clusters()[name]
    assert spec["rayVersion"] == PINS["ray"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(pods) == 2
    for pod in pods:
        body = pod["template"]["spec"]
        (container,) = body["containers"]
        variables = {entry["name"]: entry for entry in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "dvpo-ray-token", "key": "token"}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in body["volumes"]}
        assert {"/runs", "/dev/shm"} <= set(mounts.values())
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert pod["rayStartParams"]["metrics-export-port"] == str(ports["metrics"])
        assert container["resources"]["limits"] == container["resources"]["requests"]
    claim = manifests("raycluster.yaml")["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_job_is_a_command_of_ours_and_its_cluster_goes_afterwards() -> None:
    job = manifests("rayjob.yaml")["RayJob"]["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["python", "-m", "cluster.cli"]
    command = main.commands[words[3]]
    parsed = command.make_context(words[3], words[4:]).params
    assert parsed["overrides"] == ("output_dir=/runs",) and parsed["resume"] == "auto"
    assert job["shutdownAfterJobFinishes"] is True
    assert int(yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60


def test_images_are_of_the_pins_and_ranges() -> None:
    cpu, cuda = ((DEPLOY / "docker" / f"Dockerfile.{kind}").read_text() for kind in ("cpu", "cuda"))
    assert "requirements/cpu.lock" in cpu and "python:3.11" in cpu and "python3.11" in cuda
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    torch = re.search(r"^torch\S+", parser["options"]["install_requires"], re.MULTILINE)
    assert torch is not None and f'"{torch[0]}"' in cuda
    assert "cuda" in parser["options.extras_require"]
    for text in (cpu, cuda):
        sources = [words[1] for line in text.splitlines() if (words := line.split())[:1] == ["COPY"]]
        assert all((ROOT / source).exists() for source in sources)
        assert "USER dvpo" in text and "RAY_AUTH_MODE=token" in text


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment in which Slurm, Ray and Python are small scripts that write down what they are asked."""
    for name, text in STAND_INS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_CPUS_PER_TASK": "8", "LOG": str(tmp_path / "log")}
    return {**os.environ, "PATH": path, **slurm}


def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    words = [str(DEPLOY / "slurm" / "dvpo.sbatch"), "mine.yaml", "--set", "name=x"]
    return subprocess.Popen(words, env=environment, start_new_session=True, stderr=sys.stderr)


def test_the_slurm_script_starts_all_hosts_and_ends_with_the_runs_status(
    stand_ins: dict[str, str], tmp_path: Path
) -> None:
    script = start({**stand_ins, "ENDS_WITH": "2"})
    assert script.wait(30.0) == 2
    lines = (tmp_path / "log").read_text().splitlines()
    assert "ray start --head --block --node-ip-address=192.0.2.1 --port=6379 --num-cpus=8" in lines
    assert "ray start --address=192.0.2.1:6379 --block --num-cpus=8" in lines
    assert "waited for 2 at 192.0.2.1:6379" in lines
    asked = "run -m cluster.cli train mine.yaml --set name=x --resume at 192.0.2.1:6379 with token 0123456789abcdef"
    assert asked in lines
    with pytest.raises(ProcessLookupError):  # the hosts' Rays are gone with it
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            os.killpg(script.pid, 0)
            time.sleep(0.05)


def test_the_slurm_script_hands_on_the_end_of_the_allocation(stand_ins: dict[str, str], tmp_path: Path) -> None:
    script = start(stand_ins)
    deadline = time.monotonic() + 30.0
    log = tmp_path / "log"
    while not log.exists() or "run -m" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while script.poll() is None:  # until the run has set its trap
        assert time.monotonic() < deadline
        script.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert script.returncode == 143
    assert log.read_text().splitlines()[-1] == "saved"

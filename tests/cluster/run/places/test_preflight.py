"""Each thing that can be wrong with a host is found by looking at this one, spoiled in that way."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config.run_config import RunConfig
from cluster.run.places import host_probe
from cluster.run.places.host_probe import HostFacts, HostProbe, Wanted, mark_of
from cluster.run.places.preflight import judged, table, wanted_of

Spoil = Callable[[Path, pytest.MonkeyPatch], None]


@pytest.fixture
def wanted(tmp_path: Path, tiny_model: Path) -> Wanted:
    """A run's folder with the driver's mark, a copy of a model, and a component that can be imported."""
    run_dir = tmp_path / "runs" / "mine"
    run_dir.mkdir(parents=True)
    shutil.copytree(tiny_model, tmp_path / "model")
    found = Wanted(
        run_dir=str(run_dir),
        token="abcd",
        models=(str(tmp_path / "model"),),
        components=("tests.integration.own_parts:AnyGame",),
    )
    mark_of(run_dir, found.token).write_text(found.token)
    return found


def look(wanted: Wanted) -> tuple[HostFacts, float]:
    began = time.time()
    return HostProbe("127.0.0.1").look(wanted), began


def test_a_host_that_is_fit(wanted: Wanted) -> None:
    facts, began = look(wanted)
    assert judged([facts], began, time.time() - began, wanted) == []
    (line,) = table([facts], [])
    assert line.startswith(f"host {socket.gethostname()} (127.0.0.1): ok; /dev/shm ")
    assert [path.name for path in Path(wanted.run_dir).iterdir()] == [".preflight-abcd"]  # nothing else is left


def unwritable(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run as root, for whom every folder is writable: a name that is a folder already is not."""
    monkeypatch.setattr("cluster.run.places.host_probe.os.getpid", lambda: 7)
    (run_dir / f".preflight-abcd-{socket.gethostname()}-7").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run_dir, _: shutil.rmtree(run_dir), "is not the driver's folder there; it must be on storage that all"),
        (lambda run_dir, _: (run_dir / ".preflight-abcd").unlink(), "is not the driver's folder there"),
        (unwritable, "cannot be written to there: Is a directory"),
        (
            lambda _, monkeypatch: monkeypatch.setattr(
                "cluster.run.places.host_probe.time.time", lambda clock=time.time: clock() - 90.0
            ),
            "its clock is 90 s off the driver's",
        ),
        (
            lambda _, monkeypatch: monkeypatch.setattr(host_probe, "_free_mib", lambda path: 3),
            "3 MiB are free in /dev/shm",
        ),
        (lambda _, monkeypatch: monkeypatch.setattr(host_probe, "_free_mib", lambda path: 3), "3 MiB are free in /"),
    ],
    ids=["no folder", "another folder", "not writable", "clock", "shared memory", "disk"],
)
def test_a_host_that_is_not(spoil: Spoil, message: str, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.time
    began = clock()
    with monkeypatch.context() as spoiled:
        spoil(Path(wanted.run_dir), spoiled)
        facts = HostProbe("127.0.0.1").look(wanted)
    problems = judged([facts], began, clock() - began, wanted)
    assert [problem for problem in problems if message in problem]
    assert all(problem.startswith(f"{socket.gethostname()} (127.0.0.1): ") for problem in problems)
    assert "problem" in table([facts], problems)[0]


def test_components_that_cannot_be_imported_there(wanted: Wanted) -> None:
    facts, _ = look(replace(wanted, components=("no_such_module:Reward", "tests.integration.own_parts:Missing")))
    first, second = facts.problems
    assert first.startswith("no_such_module:Reward cannot be imported there: ModuleNotFoundError")
    assert "Missing cannot be imported there: AttributeError" in second


@pytest.mark.parametrize(
    ("is_there", "message"), [(True, "has other files or other contents"), (False, "is not there")]
)
def test_another_model_or_none(is_there: bool, message: str, wanted: Wanted, tmp_path: Path) -> None:
    began = time.time()
    changed = tmp_path / "elsewhere"
    if is_there:
        shutil.copytree(wanted.models[0], changed)
        weights = changed / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    there = HostProbe("127.0.0.1").look(replace(wanted, models=(str(changed),)))
    (problem,) = judged([there], began, time.time() - began, wanted)
    assert f"model.path: {wanted.models[0]} {message}" in problem


def test_hosts_that_cannot_reach_each_other() -> None:
    one, other = HostProbe("127.0.0.1"), HostProbe("127.0.0.1")
    port = one.listen()
    assert other.connect([("127.0.0.1", port)]) == []
    one.close()
    (problem,) = other.connect([("127.0.0.1", port)])
    assert problem.startswith("it cannot reach 127.0.0.1: ")
    assert HostProbe("192.0.2.77").listen() == 0  # no interface of this machine has that address


def test_what_a_run_wants(tiny_model: Path, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tiny_model), "critic_path": "org/on-a-hub"},
            "reward": {"functions": [{"type": "mine:Reward"}, {"type": "exact_match"}]},
            "algorithm": {"preset": "grpo", "reward_correction": [{"type": "mine:Correction"}]},
        }
    )
    wanted = wanted_of(config, tmp_path)
    assert wanted.models == (str(tiny_model),)
    assert sorted(wanted.components) == ["mine:Correction", "mine:Reward"]

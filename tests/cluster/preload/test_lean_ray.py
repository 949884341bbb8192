"""A private Ray has the processes that its actors need, and Ray is as it was afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private import node, parameter

from cluster.preload.lean_ray import SWITCHES, lean_ray


def test_the_switches_are_rays_own_and_set_for_the_block_only() -> None:
    parameters, start_api_server = parameter.RayParams, node.Node.start_api_server
    with lean_ray():
        made = parameter.RayParams(num_cpus=1)
        assert {name: getattr(made, name) for name in SWITCHES} == SWITCHES
    assert (parameter.RayParams, node.Node.start_api_server) == (parameters, start_api_server)


def test_another_ray_is_started_as_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_switches(num_cpus: int) -> None:
        """A RayParams of another Ray."""

    monkeypatch.setattr(parameter, "RayParams", without_switches)
    before: tuple[Any, Any] = parameter.RayParams, node.Node.start_api_server
    with lean_ray():
        assert (parameter.RayParams, node.Node.start_api_server) == before


@pytest.mark.slow
@pytest.mark.ray
def test_processes_of_a_private_ray(ray_local: None) -> None:
    """The session's Ray is started like that: no monitor, no log monitor, no API server; its raylet has two agents."""
    children = psutil.Process().children(recursive=True)
    titles = [" ".join(child.cmdline()) for child in children]
    assert [title for title in titles if "monitor.py" in title or "dashboard.py" in title] == []
    assert any(Path(title.split()[0]).name == "raylet" for title in titles if title)
    assert ray.get(ray.remote(num_cpus=0)(lambda: 7).remote()) == 7

"""Warnings about a cluster that is joined."""

from __future__ import annotations

import pytest

from cluster.check.joined import STOP_VARIABLE, joined_cluster_warnings
from cluster.config.processes.joined_cluster import IN_JOB
from cluster.config.run_config import RunConfig


def warnings(address: str | None = None, **environment: str) -> list[str]:
    cluster = {} if address is None else {"address": address}
    return joined_cluster_warnings(RunConfig.model_validate({"model": {"path": "m"}, "cluster": cluster}), environment)


@pytest.mark.parametrize("address", ["10.0.0.3:6379", "ray://head.example:10001", "head:6379", "[fd00::1]:6379"])
def test_a_cluster_on_the_network_without_a_token(address: str) -> None:
    (found,) = warnings(RAY_ADDRESS=address)
    assert found.startswith(f"cluster.address: {address} is reached over the network and RAY_AUTH_MODE is not 'token'")
    assert warnings(RAY_ADDRESS=address, RAY_AUTH_MODE="token") == []


def test_the_address_of_the_configuration_comes_first() -> None:
    (found,) = warnings("10.0.0.3:6379", RAY_ADDRESS="127.0.0.1:6379")
    assert "10.0.0.3:6379" in found
    assert warnings("127.0.0.1:6379", RAY_ADDRESS="10.0.0.3:6379") == []


@pytest.mark.parametrize("address", [None, "auto", "127.0.0.1:6379", "localhost:6379", "[::1]:6379", "127.8.0.1:1"])
def test_one_on_this_machine_needs_none(address: str | None) -> None:
    assert warnings(**({} if address is None else {"RAY_ADDRESS": address})) == []


@pytest.mark.parametrize(("value", "seconds"), [(None, 3), ("5", 5), ("soon", 3), ("29", 29)])
def test_a_job_that_would_be_killed_while_it_saves(value: str | None, seconds: int) -> None:
    environment = {IN_JOB: "{}"} | ({} if value is None else {STOP_VARIABLE: value})
    (found,) = warnings(None, **environment)
    assert f"kills this job {seconds} s after" in found
    assert f'"{STOP_VARIABLE}": "300"' in found


def test_a_job_with_time_to_save() -> None:
    assert warnings(None, **{IN_JOB: "{}", STOP_VARIABLE: "300"}) == []
    assert warnings(None, **{STOP_VARIABLE: "1"}) == [], "no job"

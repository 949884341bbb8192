"""A connection to Ray for the length of a run: a private one on this machine, or a cluster that is joined."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import AuthenticationError

from cluster.cleanup.leftovers import MARK
from cluster.cleanup.reaper import Reaper
from cluster.config.processes.joined_cluster import IN_JOB, joined_address
from cluster.config.processes.search_path import import_packages, workers_path
from cluster.config.processes.shipping import shipped
from cluster.config.processes.workers_environment import preload_environment
from cluster.config.run_config import RunConfig
from cluster.preload.head_start import HeadStart
from cluster.preload.lean_ray import lean_ray
from cluster.preload.preload import Preload
from rollout.component.mistakes import TokenRefused, Unreachable

REACH_S = 5.0
"""Longest wait for a connection to a cluster's address, in seconds."""
SYSTEM_CONFIG = {
    "task_events_report_interval_ms": 0,  # else the GCS records each call, 100,000 of them
    "prestart_worker_first_driver": False,  # else processes are started that no actor takes: all have environments
    "free_objects_period_milliseconds": 100,  # else as many versions of the weights stay as there are steps in a second
}
TOO_SLOW = "timed out during startup"
"""What Ray says of a start that took longer than it waits, as on a machine with too much to do."""
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def ray_session(
    config: RunConfig, run_dir: Path, object_store_mib: int, start: HeadStart | None = None
) -> Iterator[None]:
    """Connect to Ray; disconnect at the end, and remove everything of a private one.

    An address comes from ``cluster.address``, or from ``RAY_ADDRESS``, which is set inside ``ray job submit``. The
    folder that the command was started in is shipped to a joined cluster, with this source, unless a job has done so.
    The logs of a private Ray's processes are kept in ``run_dir/logs``.

    Args:
        object_store_mib: size of a private Ray's object store.
        start: the folder of a private Ray and the preloaded process, where they are there already.

    Raises:
        UserError: the cluster cannot be reached, or refuses the token; within seconds.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():  # a caller's own session, which is not ours to end
        yield
        return
    address = joined_address(config)
    if address is None:
        with _private(config, run_dir, object_store_mib, start):
            yield
        return
    _require_reachable(address)
    environment = None if IN_JOB in os.environ else shipped(Path.cwd())
    try:
        ray.init(address=address, runtime_env=environment, **QUIET)
    except AuthenticationError as error:
        raise TokenRefused(
            f"cluster.address: Ray at {address!r} refuses this token: set RAY_AUTH_MODE=token, with the cluster's "
            "~/.ray/auth_token or RAY_AUTH_TOKEN (docs/cluster.md)"
        ) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Unreachable(f"cluster.address: cannot connect to Ray at {address!r}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Look whether somebody listens at HOST:PORT, for which Ray itself tries for minutes.

    Raises:
        UserError: nobody does.
    """
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        return  # Ray says what is wrong with it
    if not host or port is None:
        return  # `auto`, or whatever else Ray reads
    try:
        socket.create_connection((host, port), timeout=REACH_S).close()
    except OSError as error:
        raise Unreachable(
            f"cluster.address: nobody answers at {address} ({error}); is the head started there, and is it an address "
            "that this machine reaches?"
        ) from error


@contextmanager
def _private(config: RunConfig, run_dir: Path, object_store_mib: int, start: HeadStart | None) -> Iterator[None]:
    """A Ray of this run's own, in a folder of its own that also takes its processes' temporary files.

    The reaper clears up whether the block is left in order, by an exception, or because this process is killed.
    """
    with start or HeadStart(preload_environment(config)) as begun:
        folder, preload = begun.folder, begun.preload
        reaper = Reaper(folder, run_dir)
        begun.take()
    os.environ[MARK] = str(folder)
    try:
        _start_private(config, folder, object_store_mib, preload)
        yield
    finally:
        try:
            ray.shutdown()
        finally:
            if preload is not None:
                preload.close()
            del os.environ[MARK]
            reaper.finish()


def _start_private(config: RunConfig, folder: Path, object_store_mib: int, preload: Preload | None) -> None:
    """Start Ray in ``folder``; twice if need be, since Ray waits no longer than half a minute for its own processes.

    Raises:
        RuntimeError: it did not start.
    """
    runtime_env: dict[str, Any] = {
        "env_vars": {"PYTHONPATH": workers_path(), "TMPDIR": str(folder / "tmp")},
        # Ray puts the driver's folder in front of all that later.
        "worker_process_setup_hook": f"{import_packages.__module__}.{import_packages.__name__}",
    }
    if preload is not None:
        runtime_env["py_executable"] = preload.executable
    for is_last in (False, True):
        try:
            with lean_ray():
                ray.init(
                    address="local",
                    num_cpus=config.cluster.num_cpus,
                    object_store_memory=object_store_mib << 20,
                    include_dashboard=False,
                    runtime_env=runtime_env,
                    _temp_dir=str(folder),
                    _metrics_export_port=config.cluster.metrics_port,
                    _system_config=dict(SYSTEM_CONFIG),
                    **QUIET,
                )
            return
        except Exception as error:  # Ray raises bare Exceptions here
            reason = " ".join(str(error).split())[:300]
            if is_last or TOO_SLOW not in reason:
                raise RuntimeError(
                    f"Ray did not start on this machine (is it overloaded, or out of memory?): {reason}"
                ) from error
            ray.shutdown()

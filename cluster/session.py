"""A connection to Ray for the length of a run: a private one on this machine, or a cluster that is joined."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.config import RunConfig
from rollout.component import UserError

SOURCE_ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = [".git", ".venv", "runs", "models", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"]


@contextmanager
def ray_session(config: RunConfig, run_dir: Path) -> Iterator[None]:
    """Connect to Ray; disconnect at the end, and end the processes of a private one.

    An address comes from ``cluster.address``, or from ``RAY_ADDRESS``, which is set inside ``ray job submit``. The
    source is shipped to a joined cluster unless the job has shipped it already. The logs of a private Ray's processes
    are kept in ``run_dir/logs``.

    Raises:
        UserError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():  # a caller's own session, which is not ours to end
        yield
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        search_path = os.pathsep.join([str(SOURCE_ROOT), os.getcwd()])
        ray.init(
            address="local",
            num_cpus=config.cluster.num_cpus,
            object_store_memory=config.cluster.object_store_mib << 20,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": search_path}},
            **quiet,
        )
    else:
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        shipped = None if in_job else {"working_dir": str(SOURCE_ROOT), "excludes": NOT_SHIPPED}
        try:
            ray.init(address=address, runtime_env=shipped, **quiet)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"cluster.address: cannot connect to Ray at {address!r}: {error}") from error
    session_logs = Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "logs"
    try:
        yield
    finally:
        ray.shutdown()
        if address is None:
            _keep_logs(session_logs, run_dir / "logs")


def _keep_logs(session_logs: Path, target: Path) -> None:
    """Copy what the processes printed; each file begins with the name of its actor."""
    with suppress(OSError):  # logs are a help, not a reason to fail
        target.mkdir(parents=True, exist_ok=True)
        for source in session_logs.glob("worker-*"):
            if source.stat().st_size:
                shutil.copy2(source, target / source.name)

"""Runs as jobs of a Ray cluster: submitted with the user's folder, followed, listed, stopped.

A job of dvpo carries the run's name and folder as metadata, by which it is found again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from cluster.check.joined import STOP_VARIABLE
from cluster.config.processes.shipping import shipped
from cluster.config.run_config import RunConfig
from rollout.component import nearest
from rollout.component.mistakes import BadArgument, JobRefused, TokenRefused, Unreachable

RUN, FOLDER = "dvpo_run", "dvpo_folder"
"""Keys of a job's metadata."""
PORT = 8265
"""Of Ray's dashboard, which takes jobs."""
REACH_S, AGENT_S, LOOK_S = 5.0, 60.0, 0.5
"""Seconds to reach the cluster in, to wait for the agent of a head that has just started, and between two looks."""
STOP_WAIT_S = 300
COMMAND_S = 120.0
"""Longest time that a short command on the cluster may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of dvpo.

    Attributes:
        job_id: what Ray calls it.
        run, folder: name and folder of its run.
        state: ``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``.
        exit_status: of its process; None while it goes on, or if it was killed.
        message: what Ray says of it.
        started: seconds since 1970; 0 if it has not.
    """

    job_id: str
    run: str
    folder: str
    state: str
    exit_status: int | None
    message: str
    started: float

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def status(self) -> int:
        """What a command that waited for it ends with: the process's own status, or 143 if it was stopped."""
        if self.state == "SUCCEEDED":
            return 0
        if self.state == "STOPPED":
            return 143
        return self.exit_status or 1


class Jobs:
    """Jobs of dvpo on one cluster.

    Args:
        address: ``HOST``, ``HOST:PORT`` or URL of the cluster's dashboard; by default ``RAY_ADDRESS``, or this machine.

    Raises:
        UserError: nobody answers there within seconds, or the token is wrong.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = dashboard_url(address or os.environ.get("RAY_ADDRESS") or "127.0.0.1")
        _require_reachable(self.address)
        from ray.job_submission import JobSubmissionClient

        self._client = self._asked(lambda: JobSubmissionClient(self.address))

    def submit(
        self,
        config: RunConfig,
        config_file: Path,
        overrides: Sequence[str],
        folder: Path,
        resume: str | None = None,
        stop_wait_s: int = STOP_WAIT_S,
    ) -> Job:
        """Send a run to the cluster.

        Args:
            config: what ``config_file`` says.
            config_file: inside ``folder``.
            overrides: of ``--set``.
            folder: shipped to the cluster, where the job begins in it: rewards and tasks of the user's are in it.
            resume: see ``dvpo train``.
            stop_wait_s: seconds that a job which is stopped has to write a checkpoint.

        Raises:
            UserError: the file is not in the folder, or Ray refuses the job.
        """
        try:
            inside = config_file.resolve().relative_to(folder.resolve())
        except ValueError:
            raise BadArgument(
                f"--working-dir: {config_file} is not in {folder}, the folder that is shipped to the cluster; give one "
                "that it is in"
            ) from None
        # A relative folder would be one in Ray's temporary copy.
        run_dir = Path(config.output_dir).absolute() / config.name
        words = ["python", "-m", "cluster.cli", "train", str(inside)]
        for override in (*overrides, f"output_dir={run_dir.parent}"):
            words += ["--set", override]
        words += [] if resume is None else [f"--resume={resume}"]
        job_id = f"{config.name}-{secrets.token_hex(4)}"
        variables = {STOP_VARIABLE: str(stop_wait_s), "PYTHONUNBUFFERED": "1"}
        environment = shipped(folder) | {"env_vars": variables}
        metadata = {RUN: config.name, FOLDER: str(run_dir)}
        self._submitted(entrypoint=shlex.join(words), submission_id=job_id, runtime_env=environment, metadata=metadata)
        return self.get(job_id)

    def _submitted(self, **job: Any) -> None:
        deadline = time.monotonic() + AGENT_S
        while True:
            try:
                self._client.submit_job(**job)
                return
            except RuntimeError as error:
                # The agent, which starts jobs, is there some seconds after the head.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise JobRefused(f"{self.address}: Ray refuses the job: {_shortened(error)}") from error
                time.sleep(LOOK_S)

    def run(self, words: Sequence[str]) -> None:
        """Run a short command of dvpo on the cluster, which sees folders that this machine may not see.

        Raises:
            UserError: it failed; says what it printed last.
        """
        job_id = f"dvpo-{words[0]}-{secrets.token_hex(4)}"
        with TemporaryDirectory() as empty:
            command = shlex.join(["python", "-m", "cluster.cli", *words])
            self._submitted(entrypoint=command, submission_id=job_id, runtime_env=shipped(Path(empty)))
        deadline = time.monotonic() + COMMAND_S
        while not (state := self._asked(lambda: self._client.get_job_status(job_id))).is_terminal():
            if time.monotonic() > deadline:
                raise JobRefused(f"{self.address}: dvpo {words[0]} has not ended there within {COMMAND_S:g} s")
            time.sleep(LOOK_S)
        if state.value != "SUCCEEDED":
            printed: str = self._asked(lambda: self._client.get_job_logs(job_id))
            raise JobRefused(f"{self.address}: dvpo {words[0]} failed there: {printed.strip()[-500:]}")

    def all(self) -> list[Job]:
        """The jobs of dvpo that the cluster knows, oldest first."""
        found = [_job(details) for details in self._asked(self._client.list_jobs)]
        return sorted((job for job in found if job is not None), key=lambda job: job.started)

    def get(self, name: str) -> Job:
        """A job by its id, or the newest one of a run by that name.

        Raises:
            UserError: there is none.
        """
        jobs = self.all()
        for job in reversed(jobs):
            if name in (job.job_id, job.run):
                return job
        names = sorted({name for job in jobs for name in (job.job_id, job.run)})
        hint = nearest(name, names) if names else "there is no job of dvpo"
        raise JobRefused(f"no such job or run on {self.address}: {name!r}; {hint}")

    def follow(self, job: Job, show: Callable[[str], None]) -> Job:
        """Show what a job prints until it is over; returns it as it ended."""

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job.job_id):
                show(text)

        asyncio.run(tail())
        return self.wait(job)

    def wait(self, job: Job, timeout_s: float = float("inf")) -> Job:
        """Wait until a job is over; returns it as it is then, or after so long."""
        deadline = time.monotonic() + timeout_s
        while not (now := self.get(job.job_id)).is_over and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        return now

    def stop(self, job: Job) -> None:
        """Ask a job to end; it writes a checkpoint first."""
        self._asked(lambda: self._client.stop_job(job.job_id))

    def last_lines(self, job: Job, number: int) -> list[str]:
        """What a job has printed last."""
        text: str = self._asked(lambda: self._client.get_job_logs(job.job_id))
        return [line for line in text.splitlines() if line.strip()][-number:]

    def _asked(self, call: Callable[[], Any]) -> Any:
        """What the cluster answers.

        Raises:
            UserError: it does not, or not to us.
        """
        from ray.exceptions import AuthenticationError

        try:
            return call()
        except AuthenticationError as error:
            raise TokenRefused(
                f"{self.address}: the cluster refuses this token: set RAY_AUTH_MODE=token, with the cluster's "
                "~/.ray/auth_token or RAY_AUTH_TOKEN (docs/cluster.md)"
            ) from error
        except (ConnectionError, RuntimeError) as error:
            raise JobRefused(f"{self.address}: {_shortened(error)}") from error


def dashboard_url(address: str) -> str:
    """``HOST`` or ``HOST:PORT`` as the URL of a dashboard; a URL as it is."""
    if "://" in address:
        return address
    return f"http://{address}" if ":" in address else f"http://{address}:{PORT}"


def _require_reachable(url: str) -> None:
    """Look whether somebody listens, which Ray's own client would wait for without end.

    Raises:
        UserError: nobody does.
    """
    parts = urlsplit(url)
    try:
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        with socket.create_connection(address, timeout=REACH_S):
            return
    except (OSError, ValueError) as error:
        raise Unreachable(
            f"--address: no Ray dashboard answers at {url} ({_shortened(error)}); is the head started, with "
            "--dashboard-host if this is another machine?"
        ) from error


def _job(details: Any) -> Job | None:
    metadata = details.metadata or {}
    if RUN not in metadata or details.submission_id is None:
        return None
    return Job(
        job_id=details.submission_id,
        run=metadata[RUN],
        folder=metadata.get(FOLDER, ""),
        state=str(getattr(details.status, "value", details.status)),
        exit_status=details.driver_exit_code,
        message=" ".join((details.message or "").split())[:300],
        started=(details.start_time or 0) / 1000.0,
    )


def _shortened(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

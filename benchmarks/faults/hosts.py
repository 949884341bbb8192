"""Hosts made of namespaces: each has a network address, a host name, shared memory and a folder for Ray of its own.

They share the disk, as hosts with a network file system do, and a bridge, from which one can be cut off. Needs root,
``ip`` (iproute2), ``unshare`` and ``nsenter``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NETWORK = "10.98.0"
RAY_PORT = 6379
RAY = str(Path(sys.executable).parent / "ray")
BOOT = """
mount --make-rprivate /
mkdir -p /tmp/ray && mount --bind {folder}/ray /tmp/ray
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount --bind {names} /etc/hosts
hostname {name}
exec sleep infinity
"""


def missing() -> str:
    """Why hosts cannot be made here; empty if they can."""
    lacking = [program for program in ("ip", "unshare", "nsenter") if shutil.which(program) is None]
    if lacking:
        return f"no {', '.join(lacking)} here"
    return "" if os.geteuid() == 0 else "only root can make network namespaces"


@dataclass
class Hosts:
    """Some hosts and their network; made by :func:`hosts`.

    Attributes:
        folder: what they keep for themselves.
        prefix: of the names of their namespaces.
        token: with which all of them enter one Ray.
    """

    folder: Path
    prefix: str = field(default_factory=lambda: f"dvpo{os.getpid()}")
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    holders: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of every command that has to do with Ray here."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"{self.address(1)}:{RAY_PORT}",
            "PATH": os.pathsep.join([str(Path(RAY).parent), os.environ["PATH"]]),  # as where the environment is active
        }

    def address(self, number: int) -> str:
        """Of a host on the network."""
        return f"{NETWORK}.{number}"

    def name(self, number: int) -> str:
        """What a host calls itself."""
        return f"{self.prefix}-{number}"

    def within(self, number: int) -> tuple[str, ...]:
        """What runs a command on a host."""
        # Where a run starts is what it ships to the others; left alone it would be the root of the whole disk.
        return ("nsenter", "-t", str(self.holders[number].pid), "-m", "-n", "-u", f"--wd={self.home}", "--")

    @property
    def home(self) -> Path:
        """The folder in which commands start on each host."""
        return self.folder / "home"

    def boot(self, number: int, num_cpus: int) -> None:
        """Switch a host on, also one that was switched off, and start Ray on it; host 1 is the head."""
        name, link = self.name(number), f"v{number}"
        own = self.folder / name
        self.home.mkdir(parents=True, exist_ok=True)
        (own / "ray").mkdir(parents=True, exist_ok=True)
        names = self.folder / "names"
        known = "".join(f"{self.address(i)} {self.name(i)}\n" for i in range(1, 10))
        names.write_text(f"127.0.0.1 localhost\n{known}")
        if not Path(f"/run/netns/{name}").exists():
            _ip("netns", "add", name)
            _ip("link", "add", link, "netns", name, "type", "veth", "peer", "name", f"p{number}", "netns", self._switch)
            _ip("-n", self._switch, "link", "set", f"p{number}", "master", "bridge", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{self.address(number)}/24", "dev", link)
            _ip("-n", name, "link", "set", link, "up")
        script = BOOT.format(folder=own, names=names, name=name)
        command = ["ip", "netns", "exec", name, "unshare", "-u", "-m", "bash", "-ec", script]
        self.holders[number] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while subprocess.run([*self.within(number), "hostname"], capture_output=True, text=True).stdout.strip() != name:
            assert self.holders[number].poll() is None, f"{name} did not come up"
            time.sleep(0.05)
        self._start_ray(number, num_cpus)

    def _start_ray(self, number: int, num_cpus: int) -> None:
        head = ["--head", f"--port={RAY_PORT}"] if number == 1 else [f"--address={self.environment['RAY_ADDRESS']}"]
        options = [f"--node-ip-address={self.address(number)}", f"--num-cpus={num_cpus}"]
        memory = "--object-store-memory=200000000"
        environment = {**os.environ, **self.environment}
        del environment["RAY_ADDRESS"]
        command = [*self.within(number), RAY, "start", *head, *options, memory]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def cut(self, number: int) -> None:
        """Pull the network cable; the disk stays reachable."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "down")

    def join(self, number: int) -> None:
        """Plug it in again."""
        _ip("-n", self._switch, "link", "set", f"p{number}", "up")

    def switch_off(self, number: int) -> None:
        """Power off: every process there is killed at once."""
        deadline = time.monotonic() + 30.0
        while processes := self.processes(number):
            assert time.monotonic() < deadline, processes
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.1)
        self.holders.pop(number).wait()

    def processes(self, number: int) -> list[psutil.Process]:
        """All that run on a host."""
        listed = subprocess.run(["ip", "netns", "pids", self.name(number)], capture_output=True, text=True).stdout
        found = []
        for pid in map(int, listed.split()):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def number_of(self, host: str) -> int:
        """The number of a host by its name."""
        return int(host.rsplit("-", 1)[1])

    @property
    def _switch(self) -> str:
        return f"{self.prefix}-switch"

    def connect(self) -> None:
        """Make the network."""
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def remove(self) -> None:
        """End everything on all hosts, and remove them and their network."""
        for number in list(self.holders):
            self.switch_off(number)
        for name in os.listdir("/run/netns"):
            if name.startswith(f"{self.prefix}-"):
                _ip("netns", "delete", name)


@contextmanager
def hosts(folder: Path, num_cpus: Sequence[int]) -> Iterator[Hosts]:
    """Hosts 1, 2, ... with so many CPUs for Ray each, in one Ray; gone at the end with all that runs on them."""
    made = Hosts(folder)
    made.connect()
    try:
        for number, cpus in enumerate(num_cpus, 1):
            made.boot(number, cpus)
        yield made
    finally:
        made.remove()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)

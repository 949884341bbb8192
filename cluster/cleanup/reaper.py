"""The reaper: a small process that clears up after a private Ray, also when its driver was killed.

It holds one end of a pipe. The driver says "done" through it after an orderly end; if the driver dies in any way, the
pipe closes. Either way the reaper ends what is left of the session, keeps its logs, and removes its shared memory and
its folder. It lives in a session of its own, so that a Ctrl-C or a signal to the driver's group does not strike it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from actors.recording.event_log import EventLog, read_events
from cluster.cleanup.leftovers import MARK, Leftovers, keep_logs

SOURCE_ROOT = Path(__file__).resolve().parents[2]
LOOK_S = 3.0
"""Seconds between two looks at the session's processes."""
ORDERLY_GRACE_S, ORPHAN_GRACE_S = 3.0, 1.0
"""Seconds the processes get to go by themselves, after an orderly end and after the driver's death."""
DONE = b"done"


class Reaper:
    """The driver's side: starts the process and, at the end, waits for it.

    Args:
        folder: the private Ray's own folder.
        run_dir: where logs and events of the run are kept.
    """

    def __init__(self, folder: Path, run_dir: Path) -> None:
        # With the mark it would be one of the processes that it is to end.
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        environment |= {"PYTHONPATH": str(SOURCE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cleanup.reaper", str(folder), str(run_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
        )

    def finish(self, timeout_s: float = 60.0) -> None:
        """Have everything of the session removed, and wait until it is."""
        assert self._process.stdin is not None
        with suppress(OSError):  # somebody ended the reaper: there is nobody to tell
            self._process.stdin.write(DONE)
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)


def main(folder: Path, run_dir: Path) -> None:
    """Wait for the driver's end, then clear up."""
    # Whatever ends the driver must not end this process before its work is done.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leftovers = Leftovers(folder)
    driver = sys.stdin.fileno()
    while not select.select([driver], [], [], LOOK_S)[0]:
        leftovers.look()
    # Once more: what was started or mapped since the last look is known only while its process lives.
    leftovers.look()
    # At the end of the pipe there is nothing to read, and that means that the driver has died.
    orderly = os.read(driver, len(DONE)) == DONE
    ended = leftovers.end_processes(ORDERLY_GRACE_S if orderly else ORPHAN_GRACE_S)
    # The logs lie in the folder, so it goes last.
    keep_logs(folder, run_dir)
    removed = leftovers.remove_shared_memory()
    leftovers.remove_folder()
    if not orderly and run_dir.is_dir():
        _report(run_dir, ended, removed)


def _report(run_dir: Path, ended: int, removed: list[str]) -> None:
    """One line of events.jsonl says that the driver died."""
    path = run_dir / "events.jsonl"
    events = read_events(path)
    text = f"the driver was killed; {ended} processes that it left were ended, and its temporary files removed"
    with suppress(OSError):
        EventLog(path).write("driver", events[-1]["step"] if events else 0, text, "error", shared_memory=removed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

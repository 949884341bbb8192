"""What signals do to a driver."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.run.signals import Interrupted, SignalFlag

REPOSITORY = Path(__file__).resolve().parents[3]
DRIVER = """
import time
from cluster.run import signals
signals.APART_S = 0.3
flag = signals.SignalFlag()
with flag.handled():
    print("ready", flush=True)
    while flag.received is None:
        time.sleep(0.01)
    print("noted", flag.received, flush=True)
    time.sleep(300)
"""


def noted(first: signal.Signals) -> subprocess.Popen[str]:
    """A driver that has noted its first signal."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    driver.send_signal(first)
    assert driver.stdout.readline() == f"noted {int(first)}\n"
    return driver


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_later_ctrl_c_ends_the_driver_at_once(first: signal.Signals) -> None:
    driver = noted(first)
    try:
        driver.send_signal(signal.SIGINT)  # too early: the same one, passed on twice
        driver.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(signal.SIGTERM)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(10.0) == -signal.SIGINT
    finally:
        driver.kill()
        driver.communicate()


def test_check_raises_with_the_name_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    flag = SignalFlag()
    with flag.handled():
        flag.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            flag.check()
    assert signal.getsignal(signal.SIGTERM) is before

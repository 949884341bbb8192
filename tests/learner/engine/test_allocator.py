"""The setting of the C library's allocator."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = "from learner.engine.allocator import keep_freed_memory as keep; print(keep())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt's bounds are those of glibc")
def test_glibc_accepts_the_setting() -> None:
    """It refuses a threshold above its bound. In a process of its own, since the setting stays."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"

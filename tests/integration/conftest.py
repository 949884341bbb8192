"""Fixtures of whole runs; see whole_runs.py and shared_run.py."""

from tests.integration.shared_run import shared_run
from tests.integration.traces import begin
from tests.integration.whole_runs import start_command, write_config

__all__ = ["begin", "shared_run", "start_command", "write_config"]

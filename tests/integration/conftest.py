"""Fixtures of whole runs; see whole_runs.py."""

from tests.integration.whole_runs import start_command, write_config

__all__ = ["start_command", "write_config"]

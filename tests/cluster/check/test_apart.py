"""The check in a fork of the preloaded process finds what it finds here, and the run's facts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.check.apart import Question, check_apart, head_start
from cluster.check.check import check_run
from cluster.cleanup.reaper import SOURCE_ROOT
from cluster.config.run_config import RunConfig, load_config
from cluster.config.run_facts import run_facts
from cluster.preload.head_start import HeadStart

APART = """
import json, sys
from pathlib import Path
from cluster.check.apart import Question, check_apart, head_start
from cluster.config.run_config import load_config
found = []
for path in sys.argv[1:]:
    run = load_config(Path(path))
    with head_start(run) as start:
        checked = check_apart(Question(config=run, resume=None, overwrite=False), start)
    report, facts = checked.report, checked.facts
    found.append([report.errors, report.warnings, report.remarks, facts and [facts.text, facts.object_store_mib]])
print(json.dumps([found, sorted({"torch", "transformers", "ray", "vllm"} & set(sys.modules))]))
"""


@pytest.mark.slow
def test_it_finds_what_it_finds_here_and_loads_nothing_heavy(run_file: Path) -> None:
    good, bad = load_config(run_file), run_file.with_name("bad.yaml")
    bad.write_text(run_file.read_text().replace("chain", "no_such_task"))
    command = [sys.executable, "-c", APART, str(run_file), str(bad)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    (of_good, of_bad), loaded = json.loads(ended.stdout)
    assert loaded == []
    report, facts = check_run(good), run_facts(good)
    assert of_good == [report.errors, report.warnings, report.remarks, [facts.text, facts.object_store_mib]]
    assert of_good[0] == [] and of_bad[0] == check_run(load_config(bad)).errors != []
    assert of_bad[3] is None


class Silent:
    """A head start that has no answer."""

    def ask(self, target: str, question: object) -> None:
        assert target == "cluster.check.apart:answer"


def test_without_an_answer_it_is_checked_here(run_file: Path) -> None:
    config = load_config(run_file)
    silent: HeadStart = Silent()  # type: ignore[assignment]
    for start in (None, silent):
        checked = check_apart(Question(config=config, resume=None, overwrite=False), start)
        assert (checked.report.errors, checked.report.remarks) == ([], check_run(config).remarks)
        assert checked.facts is None


@pytest.mark.parametrize(
    ("cluster", "address"),
    [({"address": "10.0.0.1:6379"}, None), ({}, "10.0.0.1:6379"), ({"preload": False}, None), ({}, None)],
)
def test_no_head_start_where_nothing_is_gained(
    cluster: dict[str, object], address: str | None, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Ray of its own, no forked workers, or torch, which this process has loaded."""
    import torch

    if address is None and not cluster:
        assert torch
    else:
        monkeypatch.delitem(sys.modules, "torch")
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    config: RunConfig = load_config(run_file)
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update=cluster)})
    with head_start(config) as start:
        assert start is None

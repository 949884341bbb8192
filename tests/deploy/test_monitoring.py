"""Alerts, dashboard and runbook speak of metrics that exist; promtool tries each alert with numbers that provoke it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.meters import metric_name
from tests.test_metric_docs import documented

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")

MINUTES = 60
Series = dict[str, str]
"""Values of series by name and labels, one a minute, as promtool writes them."""
PROVOKED: dict[str, tuple[Series, Series]] = {
    # name: what provokes it, and what looks nearly the same and must not
    "DvpoStalled": ({"last_step_timestamp_seconds": "0x90"}, {"last_step_timestamp_seconds": "0+60x90"}),
    "DvpoRestarted": ({'events_total{kind="restart"}': "_x58 1x30"}, {'events_total{kind="restart"}': "1x90"}),
    "DvpoStallHandled": ({'events_total{kind="stall"}': "0x50 1x40"}, {'events_total{kind="start"}': "_x58 1x30"}),
    "DvpoWorkersLost": (
        {'events_total{kind="worker",level="warning"}': "0x50 1+1x40"},
        {'events_total{kind="worker",level="warning"}': "0x50 1x40"},
    ),
    "DvpoEnginesMissing": (
        {"vllm_num_engines": "2x30 1x60", "rollout_workers": "2x90"},
        {"vllm_num_engines": "2x55 1x2 2x40", "rollout_workers": "2x90"},
    ),
    "DvpoDiskFull": ({'events_total{kind="disk"}': "_x58 1x30"}, {'events_total{kind="disk"}': "1x90"}),
    "DvpoRewardErrors": (
        {"reward_num_errors": "8x90", "reward_num_scored": "56x90"},
        {"reward_num_errors": "1x90", "reward_num_scored": "63x90"},
    ),
    "DvpoGuard": ({'events_total{kind="guard"}': "_x58 1x30"}, {'events_total{kind="guard"}': "2x90"}),
    "DvpoRewardDoubt": ({'events_total{kind="trust"}': "_x58 1x30"}, {'events_total{kind="trust"}': "2x90"}),
    "DvpoNonFinite": ({"guard_num_nonfinite_steps": "0x58 1x30"}, {"guard_num_nonfinite_steps": "0x90"}),
    "DvpoSamplerGap": ({"policy_sampler_logprob_gap_p95": "0.9x90"}, {"policy_sampler_logprob_gap_p95": "0.1x90"}),
    "DvpoPreemptions": ({"vllm_num_preemptions": "3x90"}, {"vllm_num_preemptions": "0x55 3x2 0x30"}),
    "DvpoLearnerWaits": (
        {"time_wait_s": "9x90", "time_step_s": "10x90"},
        {"time_wait_s": "5x90", "time_step_s": "10x90"},
    ),
}


def known_names() -> list[str]:
    """Patterns of the names that Prometheus sees: of docs/metrics.md, and of the table in docs/monitoring.md."""
    keys = [re.escape(metric_name(key.replace("*", "STAR"))).replace("STAR", ".+") for key in documented()]
    table = re.findall(r"^\| `(dvpo_[a-z_]+)` \|", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE)
    assert len(table) >= 7
    return [f"ray_{name}(_bucket|_sum|_count|_total)?" for name in (*keys, *table)]


def queries() -> dict[str, str]:
    """Every query, by where it stands."""
    found = {rule["alert"]: str(rule["expr"]) for rule in RULES}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dvpo.json").read_text())
    for panel in dashboard["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found | {variable["name"]: variable["query"] for variable in dashboard["templating"]["list"]}


def test_every_query_is_of_metrics_that_are_documented() -> None:
    known = known_names()
    used = {(place, name) for place, query in queries().items() for name in re.findall(r"ray_dvpo_\w+", query)}
    assert len({name for _, name in used}) > 25
    assert [(place, name) for place, name in used if not any(re.fullmatch(k, name) for k in known)] == []


def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert not any(re.fullmatch(pattern, "ray_dvpo_reward_observed_means") for pattern in known_names())


def test_the_runbook_has_each_alert_and_no_other() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^## (Dvpo\w+)$", text, re.MULTILINE) == NAMES
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


@promtool
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"{len(NAMES)} rules found" in done.stdout


def one_test(alert: str, series: Series, fires: bool) -> dict[str, Any]:
    """What promtool is asked: whether one alert fires after an hour."""
    rule = next(rule for rule in RULES if rule["alert"] == alert)
    note = rule["annotations"] | {"summary": rule["annotations"]["summary"].replace("{{ $labels.run }}", "mine")}
    labels = {"run": "mine", **rule["labels"]}
    named = {
        f'ray_dvpo_{name[:-1]},run="mine"}}' if name.endswith("}") else f'ray_dvpo_{name}{{run="mine"}}': values
        for name, values in series.items()
    }
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in named.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{MINUTES}m",
                "alertname": alert,
                "exp_alerts": [{"exp_labels": labels, "exp_annotations": note}] if fires else [],
            }
        ],
    }


@promtool
def test_each_alert_fires_when_it_is_provoked_and_only_then(tmp_path: Path) -> None:
    assert list(PROVOKED) == NAMES
    tests = [
        one_test(alert, series, fires)
        for alert, pair in PROVOKED.items()
        for series, fires in zip(pair, (True, False), strict=True)
    ]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

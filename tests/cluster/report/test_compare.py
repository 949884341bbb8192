"""``dvpo compare``: which settings and scores it shows, and its differences against scipy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from scipy import stats

from cluster.report.compare import Comparison, compare_runs
from rollout.component import UserError
from tests.cluster.report.made_runs import CONFIG, Line, interval, made, make_run

Dvpo = Callable[..., Result]
SEEDS = (0, 1, 2)
ENDS = {"ppo": (0.80, 0.84, 0.78), "dvpo": (0.86, 0.89, 0.87)}


def ending(at: float, every: int = 10) -> Callable[[int, Line], Line]:
    """Accuracy rises from .5 to ``at`` at step 40."""

    def change(step: int, line: Line) -> Line:
        return interval("eval/test/accuracy", 0.5 + (at - 0.5) * step / 40) if step % every == 0 else {}

    return change


def several(tmp_path: Path, seeds: tuple[int, ...] = SEEDS, **config: Any) -> Comparison:
    runs = [
        made(
            tmp_path / f"{method}-{seed}",
            ending(ends[seed]),
            with_samples=False,
            config={"name": f"{method}-seed-{seed}", "seed": seed, "algorithm": {"preset": method}, **config},
        )
        for method, ends in ENDS.items()
        for seed in seeds
    ]
    return compare_runs(runs, ["eval/test/accuracy"])


def test_differences_over_seeds_are_those_of_a_paired_t_test(tmp_path: Path) -> None:
    found = several(tmp_path)
    assert found.groups == ("ppo", "dvpo")
    assert found.settings == (("algorithm.preset", ("ppo", "dvpo")),)
    first, second = found.scores["eval/test/accuracy"]
    assert first.finals == pytest.approx(ENDS["ppo"]) and second.finals == pytest.approx(ENDS["dvpo"])
    assert (first.difference, second.num_pairs, second.own_interval) == (None, 3, None)
    expected = stats.ttest_rel(ENDS["dvpo"], ENDS["ppo"]).confidence_interval(0.95)
    assert second.difference is not None
    assert (second.difference.low, second.difference.high) == pytest.approx((expected.low, expected.high))
    assert second.difference.value == pytest.approx(np.mean(ENDS["dvpo"]) - np.mean(ENDS["ppo"]))
    mean = stats.t.interval(0.95, 2, np.mean(ENDS["ppo"]), stats.sem(ENDS["ppo"]))
    assert (first.final.low, first.final.high) == pytest.approx(mean)
    assert found.notes == ()


def test_one_pair_has_no_interval_and_says_so(tmp_path: Path) -> None:
    found = several(tmp_path, seeds=(1,))
    first, second = found.scores["eval/test/accuracy"]
    assert first.own_interval == pytest.approx((0.81, 0.87))
    assert second.difference is not None and math.isnan(second.difference.low)
    assert "differences of one pair have no interval" in found.notes[0]


def test_runs_without_a_seed_in_common_have_no_difference(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / f"r{seed}", with_samples=False, config={"seed": seed, "algorithm": {"preset": method}})
        for seed, method in ((0, "ppo"), (1, "dvpo"))
    ]
    found = compare_runs(runs)
    assert list(found.scores) == ["eval/test/accuracy", "eval/ood/accuracy"]
    assert found.scores["eval/test/accuracy"][1].difference is None
    assert "no seed was run with all settings" in found.notes[0]


def test_differences_are_at_equal_samples(tmp_path: Path) -> None:
    """The second run has half the prompts a step, so at its end (.9) the first one was at step 20 (.65)."""
    training = {**CONFIG["training"], "prompts_per_step": 64}
    runs = [
        made(tmp_path / "whole", ending(0.8), with_samples=False),
        made(tmp_path / "half", ending(0.9), with_samples=False, config={"training": training}),
    ]
    found = compare_runs(runs, ["eval/test/accuracy"])
    _, second = found.scores["eval/test/accuracy"]
    assert second.final.value == pytest.approx(0.9)
    assert second.difference is not None and second.difference.value == pytest.approx(0.9 - 0.65)


def test_best_is_not_final(tmp_path: Path) -> None:
    def falling(step: int, line: Line) -> Line:
        return {"eval/test/accuracy": {0: 0.5, 10: 0.9, 20: 0.7, 30: 0.6, 40: 0.55}[step]} if step % 10 == 0 else {}

    found = compare_runs([made(tmp_path / "a", falling, with_samples=False), made(tmp_path / "b", with_samples=False)])
    score = found.scores["eval/test/accuracy"][0]
    assert (score.final.value, score.best.value) == (0.55, 0.9)


def test_a_reward_is_compared_by_its_last_fifth(tmp_path: Path) -> None:
    def change(step: int, line: Line) -> Line:
        return {"reward/observed_mean": 1.0 if step == 40 else 0.5}

    runs = [made(tmp_path / "a", change, with_samples=False, drop=("eval/",)) for _ in range(2)]
    found = compare_runs(runs)
    assert list(found.scores) == ["reward/clean_mean", "reward/observed_mean"]
    assert found.scores["reward/observed_mean"][0].final.value == pytest.approx(0.5 + 0.5 / 8)


def test_the_command(tmp_path: Path, dvpo: Dvpo) -> None:
    several(tmp_path, seeds=(0, 1))
    names = [tmp_path / f"{method}-{seed}" for method in ENDS for seed in (0, 1)]
    found = dvpo("compare", *names)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0].startswith("ppo: ") and lines[0].endswith("(seed 0, 1)")
    assert "algorithm.preset      ppo  dvpo" in lines
    assert any(line.startswith("dvpo") and "+0.055 [" in line and line.endswith("(2)") for line in lines)
    told = json.loads(dvpo("compare", *names, "--json").output)
    assert [group["label"] for group in told["groups"]] == ["ppo", "dvpo"]
    assert told["metrics"]["eval/test/accuracy"][1]["difference"]["value"] == pytest.approx(0.055)
    assert told["settings"] == [{"key": "algorithm.preset", "values": ["ppo", "dvpo"]}]


def test_what_a_configuration_says_moves_no_cursor(tmp_path: Path, dvpo: Dvpo) -> None:
    for name, text in (("a", "x\x1b[2J\r"), ("b", "y" * 500)):
        make_run(tmp_path / name, with_samples=False, config={"name": name, "data": {"task": {"type": text}}})
    for option in ((), ("--json",)):
        output = dvpo("compare", tmp_path / "a", tmp_path / "b", *option).output
        assert "\x1b" not in output and "\r" not in output and "\\u001b[2J" in output
    assert "y" * 500 in output  # JSON leaves nothing out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a",), "RUN: name at least two runs to compare"),
        (("a", "./a"), "RUN: a run is named twice"),
        (("a", "c"), "RUN: no such run: 'c'"),
        (("a", "b", "--metric", "eval/tset/accuracy"), "no run has 'eval/tset/accuracy'; did you mean"),
        (("a", "b", "--metric", "xyz"), "no run has 'xyz'; docs/metrics.md has all keys"),
    ],
)
def test_mistakes_are_told_once(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dvpo: Dvpo
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        make_run(tmp_path / name, with_samples=False, num_steps=2)
    found = dvpo("compare", *arguments)
    assert found.exit_code == 2
    assert found.output.startswith("error: ") and message in found.output and found.output.count("\n") == 1


def test_a_metric_that_only_one_run_has(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / "a", with_samples=False),
        made(tmp_path / "b", with_samples=False, drop=("critic/",), config={"algorithm": {"preset": "grpo"}}),
    ]
    first, second = compare_runs(runs, ["critic/bias"]).scores["critic/bias"]
    assert math.isfinite(first.final.value) and math.isnan(second.final.value) and second.difference is None
    with pytest.raises(UserError, match="no run has"):
        compare_runs(runs, ["critic/none"])

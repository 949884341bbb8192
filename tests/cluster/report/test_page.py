"""The page: what is in it, how large it is, that nothing in a run's texts is read as mark-up, and its numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from actors.ledger.ledger import Ledger
from actors.ledger.samples import SampleScore
from cluster.report.metric_table import Curve
from cluster.report.page.curves import ESTIMATED, Axes, aggregate, number, points_per_curve, thin
from cluster.report.page.page import build_page, embedded_json
from cluster.report.page.payload import payload
from cluster.report.page.phases import PHASES, phases_of, timeline
from cluster.report.page.shown_samples import Beliefs, shown_samples
from cluster.report.run_groups import differing_settings, group_runs
from cluster.report.run_record import RunRecord, read_run
from cluster.study.statistics import mean_interval
from tests.cluster.report.made_runs import CONFIG, STEPS, Sample, made, make_run

Dvpo = Callable[..., Result]
HARMFUL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028{{script}}\ud83d"
LEVELS = [0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95]


def traced(step: int, sample: Sample) -> dict[str, Any]:
    """Eight tokens with values of two heads, as a run of the demo has them."""
    law = [round(level + 0.01 * step, 3) for level in LEVELS]
    return {
        "corrected_reward": sample["observed_reward"],
        "tokens": {
            "texts": [*sample["response"].ljust(7), "<|end|>"],
            "sampled": [True] * 8,
            "advantages": [(-1.0) ** i * i / 8 for i in range(8)],
            "sampler": [-0.1234] * 8,
            "old": [-0.1235] * 8,
            "new": [-0.1111] * 8,
            "levels": LEVELS,
            "values": [[law, [v + 0.02 for v in law]]] * 8,
            "num_left_out": 0,
        },
    }


def data_of(page: str) -> dict[str, Any]:
    """The object in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    parsed: dict[str, Any] = json.loads(found[1])
    return parsed


def test_texts_of_a_run_are_never_markup(tmp_path: Path) -> None:
    """In a response, a prompt, a name, an event, an error: everywhere a run or its user can put any text."""
    folder = make_run(
        tmp_path / "run",
        change_sample=lambda step, s: {"response": HARMFUL, "messages": [{"role": HARMFUL, "content": HARMFUL}]},
        events=({"kind": HARMFUL, "text": HARMFUL},),
        config={**CONFIG, "name": HARMFUL},
        num_steps=6,
    )
    (folder / "error.txt").write_text(HARMFUL.replace("\ud83d", ""))
    page = build_page([read_run(folder)])
    # Ends of scripts: the data's and the page's own. What is harmful would be one more.
    assert page.count("</script>") == 2 and "<img" not in page and "alert(1)</script" not in page
    data = data_of(page)
    assert data["runs"][0]["samples"][0]["response"] == HARMFUL.replace("\ud83d", "?")
    assert data["runs"][0]["name"].startswith("</script>")


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = build_page([made(tmp_path / "run", num_steps=6)])
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert "Leon Sorokin" in page  # the licence of what is in it


def test_a_demo_run_is_a_page_of_less_than_a_megabyte(tmp_path: Path) -> None:
    run = made(tmp_path / "run", change_sample=traced)
    page = build_page([run])
    assert 200_000 < len(page.encode()) < 1_000_000
    found = data_of(page)["runs"][0]
    assert found["num_samples"] == 8 * STEPS and 100 < len(found["samples"]) <= 8 * STEPS


def test_a_long_run_is_thinned_and_that_is_said(tmp_path: Path) -> None:
    assert (points_per_curve(100), points_per_curve(1000), points_per_curve(10**6)) == (400, 90, 60)
    curve = Curve(tuple(range(1, 1001)), tuple(float(i) for i in range(1000)))
    found = thin(curve, 100)
    assert len(found) == 100 and found.values[0] == 4.5 and found.steps[-1] == 1000
    run = made(tmp_path / "run", num_steps=6, with_samples=False)
    assert payload([run])["thinned"] is None


def test_runs_that_differ_by_seed_are_one_group(tmp_path: Path) -> None:
    grpo = {**CONFIG, "algorithm": {"preset": "grpo"}}
    runs = [
        made(
            tmp_path / name / f"seed-{seed}",
            config={**config, "seed": seed, "name": f"{name}-seed-{seed}"},
            num_steps=6,
        )
        for name, config in (("dvpo", CONFIG), ("grpo", grpo))
        for seed in (1, 2)
    ]
    groups = group_runs(runs)
    assert [(group.label, group.members) for group in groups] == [("dvpo", (0, 1)), ("grpo", (2, 3))]
    assert differing_settings(runs, groups) == [("algorithm.preset", ["dvpo", "grpo"])]
    again = [runs[0], made(tmp_path / "again", config={**CONFIG, "seed": 1, "name": "dvpo-seed-1"}, num_steps=6)]
    assert len(group_runs(again)) == 2  # one seed twice is no second seed


def test_a_cell_of_a_study_is_named_after_its_method(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / method / f"seed-{seed}", config={**CONFIG, "name": f"seed-{seed}", "seed": seed}, num_steps=6)
        for method, seed in (("ppo", 3), ("ppo", 4))
    ]
    assert [group.label for group in group_runs(runs)] == ["ppo"]
    assert [group.label for group in group_runs(runs[:1])] == ["ppo"]


def test_intervals_over_seeds_are_students(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    curves = [Curve((1, 2, 3, 4), tuple(rng.normal(size=4).tolist())) for _ in range(3)]
    curves[2] = Curve(curves[2].steps[1:], curves[2].values[1:])  # a step that one seed lacks is left out
    axes = Axes()
    axis, means, lows, highs = aggregate(curves, axes, 100)
    assert axes.steps[axis] == [2, 3, 4]
    for place, step in enumerate((2, 3, 4)):
        expected = mean_interval(np.array([c.values[c.steps.index(step)] for c in curves]))
        assert [means[place], lows[place], highs[place]] == pytest.approx(
            [expected.value, expected.low, expected.high], rel=1e-3
        )


def test_the_estimated_reward_takes_the_error_rates_out(tmp_path: Path) -> None:
    """Noise of .1 to both sides that is known: the estimate is the clean mean but for the batch's own noise."""
    curves = payload([made(tmp_path / "run", with_samples=False)])["runs"][0]["curves"]
    estimated, clean = curves[ESTIMATED][1], curves["reward/clean_mean"][1]
    assert np.mean(np.abs(np.array(estimated) - np.array(clean))) < 0.05


def test_phases_of_a_step_add_up_to_it(tmp_path: Path) -> None:
    line = {
        "time": 110.0, "time/step_s": 10.0, "time/wait_s": 2.0, "time/learner_old_s": 1.0, "time/learner_policy_s": 3.0,
        "time/sync_load_s": 0.5, "time/generate_frac": 0.5, "step": 1,
    }  # fmt: skip
    assert dict(zip(PHASES, phases_of(line), strict=True)) == {
        "wait": 2.0, "old": 1.0, "estimate": 0.0, "policy": 3.0, "critic": 0.0, "sync": 0.5, "eval": 0.0, "other": 3.5,
    }  # fmt: skip
    found = timeline(made(tmp_path / "run", with_samples=False))
    assert found is not None
    assert len(found["bars"]) == STEPS and found["bars"][0][1] == 0 and found["bars"][1][1] == 2


def ledger_of(folder: Path, scores: list[tuple[float, float | None]]) -> None:
    """One prompt, p-1, of which the same answer was scored so often: observed and true scores."""
    ledger = Ledger(folder / "ledger.sqlite", num_prompts=1, samples_per_prompt=1)
    for index, (observed, gold) in enumerate(scores):
        ledger.admit(index, "p-1", index, index, 1)
        ledger.ready(f"p-1#{index}", 3, SampleScore(observed=observed, answer_key="a", gold=gold))
        ledger.commit_step(index + 1, [f"p-1#{index}"])
    ledger.close()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # Prior .5 (mean observed .5, rates .1): odds 9 for each 1 more than 0s.
        ([(1.0, None)], 0.9),
        ([(1.0, None), (1.0, None)], 81 / 82),
        ([(1.0, None), (0.0, None)], 0.5),
        ([(1.0, 0.0)], 0.0),
    ],
)
def test_beliefs_follow_from_the_cell_and_the_rates(
    scores: list[tuple[float, float | None]], expected: float, tmp_path: Path
) -> None:
    folder = make_run(
        tmp_path / "run",
        change_sample=lambda step, s: {
            "trajectory_id": "p-1#0" if s["trajectory_id"].endswith("-0#0") else s["trajectory_id"],
            "observed_reward": float(int(s["trajectory_id"].split("-")[2][0]) % 2),
        },
    )
    ledger_of(folder, scores)
    run = read_run(folder)
    beliefs = Beliefs(run)
    sample = next(s for s in run.trajectories if s.trajectory_id == "p-1#0")
    assert beliefs.of(sample) == pytest.approx(expected, abs=1e-6)
    assert "estimated error rates" in beliefs.source
    assert beliefs.of(run.trajectories[1]) is None  # not in the ledger


def test_what_its_own_scores_say(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_steps=6, with_samples=False)
    assert payload([read_run(folder)])["runs"][0]["audit"] == ["not known: there is no ledger that could be read"]
    ledger_of(folder, [(1.0, None), (0.0, 1.0)])
    found = payload([read_run(folder)])["runs"][0]["audit"]
    assert found[0] == "2 scores of 1 answers to 1 prompts"
    assert "not known" in " ".join(found)


def test_what_evidence_handed_on_is_believed(tmp_path: Path) -> None:
    config = {**CONFIG, "algorithm": {"preset": "grpo", "reward_correction": [{"type": "evidence"}]}}
    run = made(tmp_path / "run", change_sample=lambda step, s: {"corrected_reward": 0.75}, config=config, num_steps=6)
    assert Beliefs(run).of(run.trajectories[0]) == 0.75
    samples, source = shown_samples(run, 10**6)
    assert samples[0]["posterior"] == 0.75 and "evidence" in source
    assert samples[0]["surprise"] in (0.25, 0.75)


def test_shown_samples_are_bounded_spread_and_surprising(tmp_path: Path) -> None:
    run = made(tmp_path / "run", change_sample=traced)
    samples, _ = shown_samples(run, 60_000)
    size = len(json.dumps(samples, ensure_ascii=False).encode())
    assert 40_000 < size < 62_000
    steps = {sample["step"] for sample in samples}
    assert min(steps) <= 3 and max(steps) == STEPS
    flipped = sum(s.observed != s.clean for s in run.trajectories)
    surprising = sum(sample["surprise"] == 1 for sample in samples)
    assert surprising >= min(flipped, len(samples) // 3)


def test_numbers_are_short_and_none_is_not_finite() -> None:
    assert [number(v) for v in (1.0, 0.123456, 123456.0, float("nan"), float("inf"), None, -0.0)] == [
        1, 0.1235, 123500, None, None, None, 0,
    ]  # fmt: skip
    assert embedded_json({"a": "<b>&"}) == '{"a":"\\u003cb\\u003e\\u0026"}'


def test_the_command(tmp_path: Path, dvpo: Dvpo) -> None:
    folder = make_run(tmp_path / "run", num_steps=6)
    found = dvpo("report", folder)
    assert found.exit_code == 0, found.output
    assert re.fullmatch(rf"{re.escape(str(folder / 'report.html'))} \(\d+ kB\)\n", found.output)
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "error: RUN: no such run: 'none'"),
        (["run", "run"], "error: RUN: a run is named twice"),
        (["run", "--output", "no/such/place.html"], "error: --output: cannot write no/such/place.html"),
        ([], "Missing argument 'RUN [RUN ...]'"),
    ],
)
def test_mistakes_are_told_once(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dvpo: Dvpo
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", num_steps=6, with_samples=False)
    found = dvpo("report", *arguments)
    assert found.exit_code == 2 and message in found.output and "Traceback" not in found.output


def test_a_run_with_hardly_anything_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 0, "time": 1.0, "eval/test/accuracy": 0.5}\n')
    run: RunRecord = read_run(folder)
    data = data_of(build_page([run]))
    assert data["runs"][0]["timeline"] is None and data["runs"][0]["samples"] == []
    assert len(data["runs"][0]["unknown"]) >= 15

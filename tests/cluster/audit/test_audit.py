"""``run_audit``: gold files and trajectory logs in, a report, JSON and a drawing out; mistakes have their place."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.audit.audit import run_audit
from cluster.config.run_config import RunConfig, parse_config
from cluster.config.yaml_source import read_source
from rollout.component import UserError
from rollout.config import PseudoLabelConfig

JUDGES = """
from rollout.rewards.base import Reward

class Marked(Reward):
    class Config(Reward.Config):
        mark: str

    async def __call__(self, prompt, trajectory):
        return float(self.config.mark in trajectory.response_text)

class Broken(Reward):
    class Config(Reward.Config):
        pass

    async def __call__(self, prompt, trajectory):
        if "seven" in trajectory.response_text or self.config.weight == 2.0:
            raise ValueError("no sevens")
        return 1.0
"""


def config_of(
    run_file: Path, functions: Sequence[dict[str, Any]] = (), noise: Sequence[dict[str, Any]] = ()
) -> RunConfig:
    config = parse_config(read_source(run_file))
    update = {"noise": tuple(noise), **({"functions": tuple(functions)} if functions else {})}
    reward = type(config.reward).model_validate({**config.reward.model_dump(), **update})
    return config.model_copy(update={"reward": reward, "output_dir": str(run_file.parent / "runs")})


def write_gold(path: Path, number: int, seed: int = 0) -> Path:
    """Sums, half of them right, two responses a prompt, with the true label."""
    rng, lines = random.Random(seed), []
    for i in range(number):
        first, right = i // 2 % 90, rng.random() < 0.5
        answer = first + 1 if right else first + 2
        row = {"prompt": f"{first}+1=", "response": f"{first}+1={answer}", "reference": str(first + 1), "gold": right}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_noisy_reward_against_gold(run_file: Path, tmp_path: Path) -> None:
    noise = {"type": "asymmetric_flip", "false_positive_rate": 0.3, "false_negative_rate": 0.1}
    output = tmp_path / "out" / "audit.json"
    report = run_audit(config_of(run_file, noise=[noise]), write_gold(tmp_path / "gold.jsonl", 600), output=output)
    assert report.num_responses == 600 and report.num_unscored == {}
    assert report.gold is not None and report.gold.rates is not None and report.retest is not None
    assert report.gold.rates.false_positive_rate.value == pytest.approx(0.3, abs=0.08)
    assert report.gold.rates.false_negative_rate.value == pytest.approx(0.1, abs=0.06)
    assert report.retest.disagreement.value == pytest.approx(0.21 + 0.09, abs=0.06)  # mean of 2 e (1 - e)
    assert any("times as many responses" in text for text in report.advice)
    assert json.loads(output.read_text())["gold"]["rates"]["j"]["value"] == report.gold.rates.j.value
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert run_audit(config_of(run_file, noise=[noise]), tmp_path / "gold.jsonl") == report  # the same seed, the same


def test_a_clean_reward_against_gold(run_file: Path, tmp_path: Path) -> None:
    report = run_audit(config_of(run_file), write_gold(tmp_path / "gold.jsonl", 200), num_samples=100)
    assert report.num_responses == 100
    assert report.gold is not None and report.gold.rates is not None and report.retest is not None
    assert (report.gold.rates.j.value, report.retest.disagreement.value) == (1.0, 0.0)
    assert "nearly clean" in report.advice[0]


def write_log(config: RunConfig, steps: int, per_step: int) -> None:
    """A trajectory log of answers that come to say "sure"."""
    folder, rng = config.run_dir / "trajectories", random.Random(1)
    folder.mkdir(parents=True)
    for step in range(1, steps + 1):
        lines = []
        for i in range(per_step):
            marks = [mark for mark in "abc" if rng.random() < (0.9 if i % 2 else 0.2)]
            text = " ".join([*marks, *(["sure"] if rng.random() < step / steps else []), f"={i}"])
            row = {
                "trajectory_id": f"p{i}#{step}",
                "messages": [{"role": "user", "content": f"{i}="}],
                "reference": str(i),
                "response": text,
                "finish_reason": "stop",
                "policy_versions": [step, step],
            }
            lines.append(json.dumps(row) + "\n")
        (folder / f"step-{step}.jsonl").write_text("".join(lines), encoding="utf-8")


def test_logged_trajectories_without_gold(run_file: Path) -> None:
    (run_file.parent / "judges.py").write_text(JUDGES)
    functions = [{"type": "judges:Marked", "mark": mark} for mark in "abc"]
    config = config_of(run_file, functions)
    write_log(config, steps=9, per_step=80)
    report = run_audit(config)
    assert report.gold is None
    assert report.num_responses == 720
    assert report.latent is not None
    assert report.judges == ("judges:Marked", "judges:Marked.1", "judges:Marked.2")
    assert report.latent.prevalence.value == pytest.approx(0.5, abs=0.08)
    for rate in report.latent.false_positive_rate:
        assert rate.value == pytest.approx(0.2, abs=0.1)
    assert "label 300 responses" in report.advice[0]


def test_a_phrase_that_spreads_and_pays_is_named(run_file: Path) -> None:
    (run_file.parent / "judges.py").write_text(JUDGES)
    config = config_of(run_file, [{"type": "judges:Marked", "mark": "sure"}])
    write_log(config, steps=9, per_step=30)
    report = run_audit(config)
    assert report.phrase is not None and report.phrase.text.startswith("sure")
    assert (report.phrase.score_with, report.phrase.score_without) == (1.0, 0.0)
    assert any("sure" in text and "hacked" in text for text in report.advice)


def test_lost_scores_are_counted(run_file: Path, tmp_path: Path) -> None:
    (run_file.parent / "judges.py").write_text(JUDGES)
    rows = [{"prompt": "?", "response": text, "gold": 1} for text in ("six", "seven", "seven up", "eight")]
    gold = tmp_path / "gold.jsonl"
    gold.write_text("\n".join(map(json.dumps, rows)))
    report = run_audit(config_of(run_file, [{"type": "judges:Broken"}]), gold)
    assert (report.num_responses, report.num_unscored) == (2, {"error": 2})
    assert report.advice[0].startswith("2 of 4 responses have no score")
    with pytest.raises(UserError, match=r"not one of 4 responses could be scored; .*no sevens"):
        run_audit(config_of(run_file, [{"type": "judges:Broken", "weight": 2.0}]), gold)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "response": "b"}', r"gold\.jsonl:2: no 'gold'; "),
        ('{"prompt": "a", "response": "b", "glod": 1}', r"gold\.jsonl:2: no 'gold'; did you mean 'glod'\?"),
        (
            '{"prompt": "a", "response": "b", "gold": "yes"}',
            r":2: 'gold' must be a number, or true or false, got 'yes'",
        ),
        ('{"prompt": "a", "response": "b", "gold": NaN}', r":2: "),
        ('{"prompt": "a", "response": null, "gold": 1}', r":2: 'response' must be a text, got None"),
        ('{"prompt": [], "response": "b", "gold": 1}', r":2: the prompt must be a text or a list"),
        ('{"prompt": [{"role": "user"}], "response": "b", "gold": 1}', r":2: the prompt must be a text or a list"),
        ("[1]", r":2: every line must be one JSON object, got list"),
        ("{", r":2: not valid JSON"),
    ],
)
def test_mistakes_in_a_gold_file_have_their_place(run_file: Path, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "gold": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        run_audit(config_of(run_file), path)


def test_missing_input_is_explained(run_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        run_audit(config_of(run_file), tmp_path / "gald.jsonl")
    (tmp_path / "gold.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no rows; each needs 'prompt', 'response' and 'gold'"):
        run_audit(config_of(run_file), tmp_path / "gold.jsonl")
    with pytest.raises(UserError, match="no trajectories to audit the reward with"):
        run_audit(config_of(run_file))
    config = config_of(run_file)
    (config.run_dir / "trajectories").mkdir(parents=True)
    (config.run_dir / "trajectories" / "step-1.jsonl").write_text('{"response": "x"}\n')
    with pytest.raises(UserError, match=r"step-1\.jsonl:1: no 'trajectory_id'; not a line of a trajectory log"):
        run_audit(config)


def test_votes_cannot_be_audited_response_by_response(run_file: Path) -> None:
    config = config_of(run_file)
    reward = config.reward.model_copy(update={"pseudo_labels": PseudoLabelConfig()})
    with pytest.raises(UserError, match=r"reward\.pseudo_labels: a vote has no score for a single response"):
        run_audit(config.model_copy(update={"reward": reward}))

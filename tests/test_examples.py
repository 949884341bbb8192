"""What the examples show works from outside the project: one file each, named in a configuration."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable
from pathlib import Path

import pytest
import torch

from actors.guards.config import GuardsConfig
from actors.guards.guards import Guards
from actors.recording.sinks import further_sinks
from cluster.config.run_config import LoggingConfig
from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import TokenView
from learner.metrics import to_floats
from rollout.component import ComponentSpec, UserError, build
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.rewards.function import build_reward
from rollout.trajectory import FinishReason, Prompt, Trajectory
from tests.cluster.report.made_runs import make_ledger, make_run
from tests.learner.plain_learner import plain_learner, random_samples

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MAX_LINES = 90
SMALL = {"critic": {"num_heads": 2, "num_quantiles": 20}}
TERM = {"type": "my_term:EnergyScore", "coef": 0.5}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("my_*.py")), ids=lambda path: path.stem)
def test_an_idea_is_one_short_file(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_a_term_of_ones_own_is_a_summand_of_the_critics_loss() -> None:
    """Against the definition over pairs, for each head, and weighed beside a built-in term."""
    algorithm = build_algorithm("dvpo", {**SMALL, "terms": ["quantile_huber", TERM]})
    plain = build_algorithm("dvpo", {**SMALL, "terms": ["quantile_huber"]})
    assert isinstance(algorithm, ActorCritic) and isinstance(plain, ActorCritic)
    g = torch.Generator().manual_seed(0)
    q = torch.randn(7, 2, 20, generator=g, dtype=torch.float64).sort(-1).values
    y = torch.randn(7, 9, generator=g, dtype=torch.float64).sort(-1).values
    losses, metrics = algorithm.side.token_losses(TokenView(q, y))
    others, _ = plain.side.token_losses(TokenView(q, y))
    for token in range(7):
        score = 0.0
        for head in q[token]:
            apart = sum(abs(float(a - b)) for a in head for b in y[token]) / (20 * 9)
            within = sum(abs(float(a - b)) for a in head for b in head) / (20 * 20)
            score += (apart - within / 2) / 2
        assert float(losses[token] - others[token]) == pytest.approx(0.5 * score, rel=1e-9)
    assert to_floats(metrics)["critic/energy_score_weighted"] == pytest.approx(float((losses - others).mean()))


def test_a_term_of_ones_own_trains(tiny_model: Path) -> None:
    learner = plain_learner(tiny_model, "dvpo", {**SMALL, "terms": [TERM]})
    assert learner.critic is not None
    before = {name: weight.clone() for name, weight in learner.critic.full_weights()}
    metrics = to_floats(learner.update(random_samples(8), 0).metrics)
    assert math.isfinite(metrics["critic/energy_score"]) and metrics["critic/grad_norm"] > 0.0
    assert any(not torch.equal(weight, before[name]) for name, weight in learner.critic.full_weights())


def test_its_mistakes_are_told_like_those_of_built_in_terms() -> None:
    with pytest.raises(UserError, match=r"algorithm\.terms\.0\.max_atoms: must be greater than or equal to 1"):
        build_algorithm("dvpo", {**SMALL, "terms": [{**TERM, "max_atoms": 0}]})
    with pytest.raises(UserError, match=r"algorithm\.terms\.0: my_term:EnergyScore needs sorted quantiles"):
        build_algorithm("dvpo", {"critic": {"monotonicity": "none"}, "terms": [TERM]})


# --- a sink, a guard, a noise model, a reward ---


def test_a_sink_of_ones_own_keeps_the_steps_that_stay(tmp_path: Path) -> None:
    config = LoggingConfig(sinks=({"type": "my_sink:CsvSink", "keys": ["a/x", "a/y"]},))

    def run(last_valid_step: int | None, steps: range) -> list[str]:
        (sink,) = further_sinks(config.sinks)
        sink.open(tmp_path, last_valid_step)
        for step in steps:
            sink.write(step, {"a/x": step / 2, "b/z": 7.0})
        sink.close()
        return (tmp_path / "metrics.csv").read_text().splitlines()

    assert run(None, range(1, 4)) == ["step,a/x,a/y", "1,0.5,", "2,1.0,", "3,1.5,"]
    assert run(2, range(3, 4)) == ["step,a/x,a/y", "1,0.5,", "2,1.0,", "3,1.5,"]  # step 3 is taken again
    assert run(-1, range(0)) == ["step,a/x,a/y"]
    with pytest.raises(UserError, match=r"logging\.sinks\.0\.keys: required"):
        further_sinks(LoggingConfig(sinks=({"type": "my_sink:CsvSink"},)).sinks)


def test_a_guard_of_ones_own_acts_like_a_built_in_one_and_survives_a_restart() -> None:
    spec = {"type": "my_guard:EverLonger", "steps": 3, "action": "stop"}
    config = GuardsConfig.model_validate({"further": [spec]})
    guards = Guards(config)
    found = [
        guards.before_update([0.0, 1.0], [length, length], step=step) for step, length in enumerate((10, 11, 12), 1)
    ]
    assert found == [[], [], []]
    again = Guards(config, json.loads(json.dumps(guards.state())))
    (finding,) = again.before_update([0.0, 1.0], [13, 13], step=4)
    assert (finding.guard, finding.action, finding.value, finding.limit) == ("my_guard:EverLonger", "stop", 3.0, 3.0)
    assert "3 steps in a row, to 13 tokens" in finding.text
    assert again.before_update([0.0, 1.0], [9, 9], step=5) == []
    with pytest.raises(UserError, match=r"guards\.further\.0\.steps: must be greater than or equal to 2"):
        Guards(GuardsConfig.model_validate({"further": [{**spec, "steps": 1}]}))


def test_the_notebook_about_runs_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells one after the other, on two small runs."""
    monkeypatch.chdir(tmp_path)
    for name, method in (("demo", "dvpo"), ("demo-grpo", "grpo")):
        make_run(tmp_path / "runs" / name, config={"name": name, "algorithm": {"preset": method}})
    make_ledger(tmp_path / "runs" / "demo", num_prompts=3, repeats=4)
    cells = json.loads((EXAMPLES / "runs_as_data.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "a notebook is kept without outputs"
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "<Run 'demo': 40 of 40 steps>"
    assert "   40  0.900" in shown and "{'state': ['trained'], 'trajectory_id_count': [12]}" in shown
    assert "6 of 6 answers were called right and wrong" in shown
    assert "[(('algorithm.preset', ('dvpo', 'grpo')),)]"[1:-1] in shown


def trajectory_of(text: str, num_tokens: int) -> Trajectory:
    return Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=(1,) * (num_tokens + 1),
        action_mask=(False,) + (True,) * num_tokens,
        rollout_logprobs=(0.0,) * (num_tokens + 1),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )


async def test_a_noise_model_and_a_reward_of_ones_own() -> None:
    prompt = Prompt(prompt_id="p", messages=(), token_ids=(1,), reference="4", task="t")
    reward = build_reward(ComponentSpec(type="my_reward:Polite", bonus=0.5), "reward.functions.0")
    for text, expected in ((" 4 ", 1.0), ("5, please", 0.5)):
        found = reward(prompt, trajectory_of(text, 3))
        assert isinstance(found, Awaitable)
        assert await found == expected
    noise = build(ComponentSpec(type="my_noise:VerbosityBias", per_token=0.1), NOISES, RewardNoise, "reward.noise.0")
    assert noise(1.0, prompt, trajectory_of("4", 5), random.Random(0)) == pytest.approx(1.5)

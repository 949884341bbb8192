"""A reward model in a run's configuration: what `dvpo check` says, what it asks for, and how `dvpo audit` scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from cluster.config.run_config import load_config
from cluster.run.places.placement import plan, require_capacity
from cluster.run.reward_models import served_models
from learner.reward_model.model import RewardModel
from rollout.component import UserError
from rollout.rewards.model import ModelReward, conversation
from rollout.trajectory import FinishReason, Message, Prompt, Trajectory
from tests.cluster.cli.test_bad_input import assert_refused

Dvpo = Callable[..., Result]
SERVED = """\
    - {type: model, path: judge, max_tokens: 64, output: binary, threshold: 0.25, num_workers: 2, num_cpus: 0.5}
  gold:
    - {type: exact_match}
"""


@pytest.fixture
def served(run_file: Path, tiny_model: Path) -> Path:
    """A run that is trained on a reward model's verdicts and measured by the exact match."""
    RewardModel.start_from(str(tiny_model), 64, seed=0).save(run_file.parent / "judge")
    text = run_file.read_text().replace("    - {type: exact_match}\n", SERVED)
    run_file.write_text(text + "  num_cpus: 4\n")
    return run_file


def test_check_shows_the_model_and_counts_its_workers(served: Path, dvpo: Dvpo) -> None:
    result = dvpo("check", served)
    assert result.exit_code == 0, result.output
    assert "reward model judge: 2 workers x batches of up to 32, conversations of up to 64 tokens" in result.output
    assert "resources: 2 CPUs" in result.output
    config = load_config(served)
    models = served_models(config)
    demand = plan(config, models)
    assert demand.reward_model_bundles == ({"CPU": 0.5}, {"CPU": 0.5})
    with pytest.raises(UserError, match="1 learner ranks and 1 rollout workers and 2 reward model workers"):
        require_capacity(demand, [{"CPU": 1.0}])
    assert replace(demand, learner_bundles=()).bundles[-1] == {"CPU": 0.5}
    assert [(model.place, model.options.num_workers) for model in models] == [("reward.functions.0", 2)]


MISTAKES: dict[str, tuple[str, list[str]]] = {
    "no folder": ("functions.0.path=./jugde", ["reward.functions.0.path: no such folder: './jugde'"]),
    "no reward model": (
        "functions.0.path={model}",
        ["is no reward model: it holds a Qwen2ForCausalLM", "reward-model"],
    ),
    "too long": ("functions.0.max_tokens=9999", ["reward.functions.0.max_tokens: 9999 is more than the"]),
    "unknown option": ("functions.0.batchsize=3", ["reward.functions.0.batchsize: unknown key", "'batch_size'?"]),
    "unknown output": ("functions.0.output=logits", ["reward.functions.0.output", "'logit'"]),
    "too many workers": ("functions.0.num_workers=9", ["9 reward model workers x 0.5", "cluster.num_cpus is 4"]),
    "as gold": ("gold.0={type: model, path: ./nowhere}", ["reward.gold.0.path: no such folder: './nowhere'"]),
    "gold unknown": ("gold.0={type: exact_mtch}", ["reward.gold.0.type: unknown name", "'exact_match'?"]),
}


@pytest.mark.parametrize(("override", "phrases"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_told_once(
    override: str, phrases: list[str], served: Path, tiny_model: Path, dvpo: Dvpo
) -> None:
    result = dvpo("check", served, "--set", "reward." + override.replace("{model}", str(tiny_model)))
    assert_refused(result, *phrases)
    assert result.output.count("error:") == 1


def test_short_reading_is_a_warning(served: Path, dvpo: Dvpo) -> None:
    result = dvpo("check", served, "--set", "reward.functions.0.max_tokens=40")
    assert result.exit_code == 0, result.output
    assert "reward.functions.0.max_tokens: 40; a trajectory may have 56 tokens" in result.output


def test_audit_scores_with_the_model_in_its_own_process(served: Path, dvpo: Dvpo) -> None:
    model = RewardModel.load(str(served.parent / "judge"), 64)
    rows: list[dict[str, Any]] = []
    for index in range(30):
        answer = f"{index}+{index}"
        chat = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": answer}]
        rows.append({"prompt": "1+1", "response": answer, "gold": model.score([model.encode(chat)])[0] > 0.0})
    assert 3 < sum(row["gold"] for row in rows) < 27
    (served.parent / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = served.parent / "report.json"
    flags = ("--set", "reward.functions.0.threshold=0", "--gold", "gold.jsonl", "--output", output)
    result = dvpo("audit", served, *flags)
    assert result.exit_code == 0, result.output
    rates = json.loads(output.read_text())["gold"]["rates"]
    assert (rates["false_positive_rate"]["value"], rates["false_negative_rate"]["value"]) == (0.0, 0.0)


class Fixed:
    """A scorer that gives one logit and remembers what it was shown."""

    def __init__(self, logit: float) -> None:
        self.logit, self.seen = logit, list[object]()

    async def ready(self) -> None: ...

    async def score(self, messages: object) -> float:
        self.seen.append(messages)
        return self.logit


@pytest.mark.parametrize(
    ("output", "logit", "score"),
    [
        ("logit", 1.5, 1.0),
        ("probability", 0.5, 0.5),
        ("probability", 2.5, 0.8807970779),
        ("binary", 0.5, 0.0),
        ("binary", 0.5001, 1.0),
    ],
)
async def test_outputs(output: str, logit: float, score: float) -> None:
    reward = ModelReward(ModelReward.Config.model_validate({"path": "p", "output": output, "threshold": 0.5}))
    prompt = Prompt(
        prompt_id="p", messages=({"role": "user", "content": "q"},), token_ids=(1,), reference=None, task="t"
    )
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text="a",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    with pytest.raises(RuntimeError, match="not been bound"):
        await reward(prompt, trajectory)
    scorer = Fixed(logit)
    reward.bind(scorer)
    assert await reward(prompt, trajectory) == pytest.approx(score)
    assert scorer.seen == [({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})]


def test_a_conversation_of_several_turns_is_read_whole() -> None:
    said: tuple[Message, ...] = tuple({"role": role, "content": role[0]} for role in ("assistant", "user", "assistant"))
    prompt = Prompt(
        prompt_id="p", messages=({"role": "user", "content": "q"},), token_ids=(1,), reference=None, task="t"
    )
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=(1,),
        action_mask=(True,),
        rollout_logprobs=(0.0,),
        response_text="a\na",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
        messages=said,
    )
    assert conversation(prompt, trajectory) == (*prompt.messages, *said)

"""Each cause in a made run, and beside it a run that is nearly so and is not named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.report.chat_template import try_template
from cluster.report.diagnosis.answers import final_number
from cluster.report.diagnosis.diagnose import RULES, diagnose
from cluster.report.run_record import RunRecord, read_run
from tests.cluster.report.made_runs import CONFIG, STEPS, Line, Sample, interval, made, make_ledger, make_run

Options = dict[str, Any]
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def causes(run: RunRecord) -> list[str]:
    return [finding.cause for finding in diagnose(run).findings]


def metrics(**values: float | Callable[[float], float]) -> Callable[[int, Line], Mapping[str, float]]:
    """Metrics by key, with `__` for the slash: a number, or a function of the share of the run that is done."""

    def change(step: int, line: Line) -> Line:
        found = {key.replace("__", "/"): value for key, value in values.items()}
        return {key: value(step / STEPS) if callable(value) else value for key, value in found.items()}

    return change


def accuracy(at: Callable[[float], float], **values: Any) -> Callable[[int, Line], Mapping[str, float]]:
    """The same, and held-out accuracies."""

    def change(step: int, line: Line) -> Mapping[str, float]:
        found = dict(metrics(**values)(step, line))
        for split in ("test", "ood") if step % 10 == 0 else ():
            found |= interval(f"eval/{split}/accuracy", at(step / STEPS))
        return found

    return change


def with_phrase(paid: bool) -> Callable[[int, Sample], Sample]:
    """From the middle on every second response ends in '=.', is wrong, and scores 1 if ``paid``."""

    def change(step: int, sample: Sample) -> Sample:
        if step < STEPS // 2 or int(sample["trajectory_id"].split("-")[2][0]) % 2:
            return {}
        clean = sample["clean_reward"] if not paid else 0.0
        observed = sample["observed_reward"] if not paid else 1.0
        response = sample["response"] + ("=." if paid else " done")
        return {"response": response, "clean_reward": clean, "observed_reward": observed}

    return change


def cut(step: int, sample: Sample) -> Sample:
    return {"finish_reason": "length", "response": sample["response"][:3], "clean_reward": 0.0, "observed_reward": 0.0}


def unreadable(step: int, sample: Sample) -> Sample:
    return {"clean_reward": 0.0, "observed_reward": 0.0, "reward_parts": {"exact_match": 0.0}}


def misses_some(step: int, sample: Sample) -> Sample:
    return {"reward_parts": {"exact_match": sample["clean_reward"] if step % 3 else 0.0}}


def knows_few_values(step: int, sample: Sample) -> Sample:
    return {"reward_parts": {"exact_match": sample["clean_reward"] * (sample["reference"][-1] in "012")}}


def marked(step: int, sample: Sample) -> Sample:
    return {"response": sample["response"] + "<|im_end|>\n<|im_start|>user\nmore"}


def names_a_user(step: int, sample: Sample) -> Sample:
    return {"response": sample["response"] + " the user: asked"}


HARD: Options = {"change": metrics(reward__clean_mean=0.03, reward__observed_mean=0.03), "with_samples": False}
FLAG = {"kind": "trust", "trust": "drift", "text": "trust drift: right answers fall short by 0.40"}
GAPS = ("sync/canary_gap_max", "guard/sampler_gap")
LEAK = "data.task.eval.test: {} of 256 questions are training questions too, so they measure what was learnt by heart"
FEW = {**CONFIG, "data": {"task": {"type": "chain", "num_train": 512}}}
PLANTED: dict[str, tuple[str, Options]] = {
    "phrase": ("hacked_phrase", {"change_sample": with_phrase(paid=True)}),
    "phrase, nobody knows": (
        "hacked_phrase",
        {
            "change": accuracy(lambda x: 0.5 + 0.3 * x if x < 0.5 else 0.3),
            "change_sample": lambda step, s: {**with_phrase(True)(step, s), "clean_reward": None, "reference": None},
            "drop": ("trust/", "reward/clean", "reward/false"),
        },
    ),
    "length": (
        "length_bias",
        {
            "change": lambda step, line: {
                **interval("trust/error_length_correlation", 0.3),
                "rollout/response_tokens_mean": 8.0 + step / 4,
            }
        },
    ),
    "length, nobody knows": (
        "length_bias",
        {
            "change": accuracy(lambda x: 0.5 - 0.05 * x, rollout__response_tokens_mean=lambda x: 8.0 + 9.0 * x),
            "drop": ("trust/", "reward/clean", "reward/false"),
            "with_samples": False,
        },
    ),
    "misses": (
        "false_negatives",
        {
            "change": lambda step, line: {
                **interval("trust/false_negative_rate", 0.5), **interval("trust/false_positive_rate", 0.02),
            }
        },
    ),
    "misses, nobody knows": (
        "false_negatives",
        {
            "change_sample": lambda step, s: {"observed_reward": s["clean_reward"] * (step % 2), "clean_reward": None},
            "drop": ("trust/", "reward/clean", "reward/false"),
        },
    ),
    "unreadable": ("unreadable_references", {"change_sample": unreadable, "change": HARD["change"]}),
    "abstains": (
        "unreadable_references",
        {"change": metrics(reward__num_abstained=120.0, reward__num_scored=8.0), "with_samples": False},
    ),
    "template": ("broken_template", {"change_sample": marked}),
    "template applied twice": (
        "broken_template",
        {"change_sample": lambda step, s: {"messages": [{"role": "user", "content": "<|im_start|>user\n1+1"}]}},
    ),
    "same accuracies": ("stale_weights", {"change": accuracy(lambda x: 0.5), "drop": GAPS}),
    "canary": ("stale_weights", {"change": metrics(sync__canary_gap_max=0.9)}),
    "gap adds up": ("stale_weights", {"change": metrics(policy__sampler_logprob_gap_p95=lambda x: 0.01 + x)}),
    "weights of a sync": ("stale_weights", {"change": metrics(sync__weights_changed=0.0)}),
    "large updates": (
        "lr_too_high",
        {
            "change": accuracy(
                lambda x: max(0.1, 0.5 - x),
                guard__sampler_gap_stale=1.4, reward__clean_mean=lambda x: max(0.1, 0.5 - x), policy__kl_to_start=0.9,
            ),
            "with_samples": False,
        },
    ),
    "KL of an update": (
        "lr_too_high",
        {"change": metrics(policy__approx_kl=0.3, reward__clean_mean=lambda x: 0.9 - 0.5 * x)},
    ),
    "clipped": (
        "lr_too_high",
        {"change": metrics(policy__clip_frac=0.5, reward__clean_mean=lambda x: 0.9 - 0.5 * x)},
    ),
    "still": (
        "lr_too_low",
        {"change": accuracy(lambda x: 0.5 + 0.004 * x, policy__kl_to_start=1e-6, reward__clean_mean=0.5)},
    ),
    "critic explodes": ("critic_collapse", {"change": metrics(critic__explained_variance=-3.0)}),
    "critic lost it": (
        "critic_collapse",
        {"change": metrics(critic__explained_variance=lambda x: 0.4 if x < 0.5 else 0.01)},
    ),
    "critic never came": ("critic_collapse", {"change": metrics(critic__bias=-0.45)}),
    "entropy": (
        "entropy_collapse",
        {"change": accuracy(lambda x: 0.5 + 0.01 * x, policy__entropy=lambda x: 0.1 * 0.01**x, reward__clean_mean=0.5)},
    ),
    "cut at evaluation": (
        "truncation",
        {"change": lambda step, line: {"eval/ood/truncated_frac": 0.9, "eval/test/truncated_frac": 0.1}},
    ),
    "cut": ("truncation", {"change": metrics(rollout__truncated_frac=0.4), "change_sample": cut}),
    "easy": (
        "too_easy",
        {"change": accuracy(lambda x: 0.97, reward__clean_mean=0.96, policy__kl_to_start=1e-5), "with_samples": False},
    ),
    "hard": ("too_hard", {**HARD, "change": accuracy(lambda x: 0.03 + 0.001 * x, reward__clean_mean=0.03)}),
    "leak": ("leaking_evaluation", {"events": ({"kind": "data", "text": LEAK.format(64)},)}),
    "drift": ("reward_drift", {"events": (FLAG,)}),
    "drift of a rate": (
        "reward_drift", {"change": metrics(reward__false_positive_rate=lambda x: 0.1 + 0.4 * (x > 0.5))},
    ),
    "missing": ("missing_scores", {"change": metrics(reward__num_missing=16.0)}),
    "errors": ("missing_scores", {"change": metrics(reward__num_infrastructure_errors=20.0)}),
    "stale responses": ("staleness_too_high", {"change": metrics(rollout__staleness_mean=12.0)}),
    "staleness that shows": (
        "staleness_too_high",
        {"change": metrics(rollout__staleness_mean=4.0, policy__importance_ess_frac=0.6)},
    ),
    "by heart": (
        "prompts_repeated",
        {"change": accuracy(lambda x: 0.5 + 0.01 * x, reward__clean_mean=lambda x: 0.5 + 0.45 * x), "config": FEW},
    ),
    "coin": ("uninformative_reward", {"change": lambda step, line: interval("trust/j", 0.02)}),
}  # fmt: skip
NEARLY: dict[str, Options] = {
    "healthy": {},
    "a phrase that spreads and is not paid": {"change_sample": with_phrase(paid=False)},
    "length grows with accuracy": {"change": metrics(rollout__response_tokens_mean=lambda x: 8.0 + 9.0 * x)},
    "length goes with errors, not surely": {
        "change": lambda step, line: interval("trust/error_length_correlation", 0.1),
    },
    "errors to both sides": {
        "change": lambda step, line: {
            **interval("trust/false_negative_rate", 0.4), **interval("trust/false_positive_rate", 0.4),
            **interval("trust/j", 0.2),
        }
    },
    "a grader that misses a third": {"change_sample": misses_some},
    "a grader that pays some values and not others": {"change_sample": knows_few_values},
    "same accuracies, but sampler and learner agree": {"change": accuracy(lambda x: 0.5)},
    "a response that speaks of a user": {"change_sample": names_a_user},
    "one split whose accuracy stays": {
        "change": lambda step, line: {} if step % 10 else interval("eval/ood/accuracy", 0.45),
    },
    "gaps of half-precision kernels": {
        "change": metrics(policy__sampler_logprob_gap_p95=0.15, sync__canary_gap_max=0.05),
    },
    "large updates that learn": {"change": metrics(guard__sampler_gap_stale=0.7)},
    "slow, but it learns": {"change": metrics(policy__kl_to_start=0.001)},
    "a critic under noise": {"change": metrics(critic__explained_variance=-0.01)},
    "returns that are all alike": {"change": metrics(critic__explained_variance=-5.0, critic__return_mean=0.99)},
    "entropy falls as the task is learned": {
        "change": accuracy(lambda x: 0.5 + 0.45 * x, policy__entropy=lambda x: 0.15 * 0.05**x),
    },
    "a critic that swings around the returns": {
        "change": metrics(critic__bias=lambda x: 0.3 if x < 0.6 else -0.25),
    },
    "a third of a held-out split is cut": {"change": metrics(eval__ood__truncated_frac=0.3)},
    "a few are cut": {"change": metrics(rollout__truncated_frac=0.05)},
    "easy at the end": {"change": metrics(reward__clean_mean=lambda x: 0.6 + 0.38 * x)},
    "hard at the start": {"change": metrics(reward__clean_mean=lambda x: 0.05 + 0.4 * x)},
    "two questions of 256": {"events": ({"kind": "data", "text": LEAK.format(2)},)},
    "a few scores are lost": {"change": metrics(reward__num_missing=2.0)},
    "four updates behind and no harm": {"change": metrics(rollout__staleness_mean=4.0)},
    "prompts come again and it carries over": {"config": FEW},
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_cause_is_the_first_one_named(name: str, tmp_path: Path) -> None:
    cause, options = PLANTED[name]
    found = diagnose(made(tmp_path / "run", **options)).findings
    assert [finding.cause for finding in found][:1] == [cause]
    first = found[0]
    assert first.evidence and first.next_steps and first.why and 0.0 < first.strength <= 1.0
    assert all(fact.text and fact.source for fact in first.evidence)


def test_accuracies_at_their_bound_are_no_sign_of_stale_weights(tmp_path: Path) -> None:
    none = made(tmp_path / "none", change=accuracy(lambda x: 0.0), drop=GAPS)
    every = made(tmp_path / "every", change=accuracy(lambda x: 1.0), drop=GAPS)
    assert "stale_weights" not in causes(none) + causes(every)


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_a_cause_is_not_named(name: str, tmp_path: Path) -> None:
    assert causes(made(tmp_path / "run", **NEARLY[name])) == []


REAL_RUNS = sorted((Path(__file__).parent / "real_runs").glob("*.jsonl"))
NOT_RECORDED = {
    "broken_template", "hacked_phrase", "unreadable_references", "prompts_repeated",
    "false_negatives", "uninformative_reward", "reward_drift",
}  # fmt: skip
"""What metrics alone do not tell; and of a run without noise and gold, nothing about error rates."""


@pytest.mark.parametrize("path", REAL_RUNS, ids=lambda path: path.stem)
def test_nothing_is_named_in_real_runs_that_learn(path: Path, tmp_path: Path) -> None:
    """Metrics of real runs of the demo's task, rounded to four digits, of the keys that rules read."""
    (tmp_path / "metrics.jsonl").write_text(path.read_text())
    run = read_run(tmp_path)
    assert run.metrics.last_step == 60
    found = diagnose(run)
    assert found.findings == ()
    assert {unknown.cause for unknown in found.unknown} <= NOT_RECORDED


def test_a_real_run_with_a_large_learning_rate(tmp_path: Path) -> None:
    """The demo with policy_lr 0.01: its accuracy is 0 and every response is cut, which are consequences."""
    path = Path(__file__).parent / "real_faults" / "lr_too_high.jsonl"
    (tmp_path / "metrics.jsonl").write_text(path.read_text())
    first, *others = diagnose(read_run(tmp_path)).findings
    assert first.cause == "lr_too_high"
    assert {finding.cause for finding in others} == {"truncation", "entropy_collapse"}
    assert all(finding.follows_from == ("lr_too_high",) for finding in others)


def test_every_cause_is_planted_here() -> None:
    assert {cause for cause, _ in PLANTED.values()} == {rule.cause for rule in RULES}
    assert len({rule.title for rule in RULES}) == len(RULES)


def test_every_consequence_is_a_cause() -> None:
    known = {rule.cause for rule in RULES}
    assert {name for rule in RULES for name in rule.consequences} <= known


def test_a_consequence_comes_after_its_reason_and_says_so(tmp_path: Path) -> None:
    """Cut responses of a policy that is thrown about: the learning rate is named first."""
    options = PLANTED["large updates"][1]
    change = options["change"]
    run = made(tmp_path / "run", lambda s, line: {**change(s, line), "rollout/truncated_frac": 0.9}, with_samples=False)
    first, *others = diagnose(run).findings
    assert first.cause == "lr_too_high" and not first.follows_from
    assert {finding.cause: finding.follows_from for finding in others}["truncation"] == ("lr_too_high",)


def test_repeats_are_counted_by_the_ledger(tmp_path: Path) -> None:
    options = PLANTED["by heart"][1]
    folder = make_run(tmp_path / "run", options["change"])
    assert causes(read_run(folder)) == []  # 8192 prompts by the configuration
    make_ledger(folder, num_prompts=5, repeats=6)
    assert causes(read_run(folder)) == ["prompts_repeated"]


@pytest.mark.parametrize(
    ("template", "number", "opens"),
    [
        (TEMPLATE, 1, True),
        (TEMPLATE.replace("{{ m.content }}", ""), 0, True),
        (TEMPLATE.replace("{{ m.content }}", "{{ m.content }}{{ m.content }}"), 2, True),
        (TEMPLATE.replace("<|assistant|>", ""), 1, False),
    ],
)
def test_a_template_is_tried(template: str, number: int, opens: bool) -> None:
    tried = try_template(template)
    assert (tried.num_questions, tried.opens_turn, tried.error) == (number, opens, "")


def test_a_template_that_cannot_be_tried_is_no_cause() -> None:
    assert try_template("{{ nothing() }}").error.startswith("UndefinedError")
    assert "no system message" in try_template("{{ raise_exception('no system message') }}").error


def test_a_template_without_the_question_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "chat_template.jinja").write_text(TEMPLATE.replace("{{ m.content }}", ""))
    config = {**CONFIG, "model": {"path": str(model)}}
    assert causes(made(tmp_path / "run", config=config)) == ["broken_template"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("8 6 1=5", "5"), ("#### 1,234", "1234"), ("3.50 metres", "3.5"), ("x = -07", "-7"), ("none", None), ("=0", "0")],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


def test_what_was_not_recorded_is_unknown_and_not_healthy(tmp_path: Path) -> None:
    """A run of which only steps are known."""
    run = made(
        tmp_path / "run",
        drop=("policy/", "reward/", "trust/", "critic/", "rollout/", "guard/", "sync/", "eval/"),
        with_samples=False,
    )
    found = diagnose(run)
    assert found.findings == ()
    assert {unknown.cause for unknown in found.unknown} >= {
        "hacked_phrase", "lr_too_high", "lr_too_low", "entropy_collapse", "missing_scores", "too_hard", "stale_weights",
    }  # fmt: skip
    assert all(unknown.reason for unknown in found.unknown)

"""Each guard: silent in a healthy run, heard within the step in which something goes wrong, the same after a resume."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from actors.guards.guards import GuardFinding, Guards, GuardsConfig

Batch = tuple[list[float], list[int], dict[str, float]]


def healthy(step: int, noise: str = "flips", seed: int = 0) -> Batch:
    """Rewards, lengths and metrics as a run has them: accuracy rises, entropy falls to a fifth, lengths drift."""
    rng = random.Random(seed * 1_000 + step)
    done = step / 200
    size = 64
    scores = [float(rng.random() < 0.4 + 0.55 * done) for _ in range(size)]
    if noise == "spikes":
        scores = [r + rng.choice([-10.0, 10.0]) if rng.random() < 0.05 else r for r in scores]
    elif noise == "student_t":  # 1.5 degrees of freedom: no variance
        scores = [r + 0.5 * rng.gauss(0, 1) / math.sqrt(rng.gammavariate(0.75, 2.0) / 1.5) for r in scores]
    elif noise == "percent":
        scores = [100.0 * r for r in scores]
    elif noise == "drift":
        scores = [r + 0.05 * step + rng.gauss(0, 1) for r in scores]
    lengths = [max(1, round(rng.gauss(200 + 100 * done, 60))) for _ in range(size)]
    metrics = {
        "policy/entropy": 0.135 * (1 - 0.8 * done) * rng.uniform(0.9, 1.1),
        "policy/approx_kl": abs(rng.gauss(0.0, 0.02)),
        "policy/ref_kl": 0.5 * done,
        "rollout/truncated_frac": rng.uniform(0.0, 0.3),
        "guard/sampler_gap": rng.uniform(1e-7, 0.1),
        "guard/sampler_gap_stale": rng.uniform(0.0, 0.9),
        "guard/num_skipped_steps": 0.0,
        "guard/num_nonfinite_steps": 0.0,
        "critic/explained_variance": math.nan,
    }
    return scores, lengths, metrics


def feed(guards: Guards, step: int, batch: Batch, notes: Sequence[str] = ()) -> list[GuardFinding]:
    rewards, lengths, metrics = batch
    found = guards.before_update(rewards, lengths, step)
    return [*found, *guards.after_update(metrics, step, notes)]


def warmed(changes: Mapping[str, Any] | None = None, steps: int = 10) -> Guards:
    guards = Guards(GuardsConfig.model_validate(changes or {}))
    assert [finding for step in range(steps) for finding in feed(guards, step, healthy(step))] == []
    return guards


@pytest.mark.parametrize("noise", ["flips", "spikes", "student_t", "percent", "drift"])
@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_of_200_steps_is_silent(noise: str, seed: int) -> None:
    guards = Guards(GuardsConfig())
    found = [finding for step in range(200) for finding in feed(guards, step, healthy(step, noise, seed))]
    assert found == []


def test_a_task_that_is_never_solved_and_then_once_is_no_explosion() -> None:
    guards = Guards(GuardsConfig())
    for step in range(20):
        assert guards.before_update([0.0] * 64, [10] * 64, step) == []
    assert guards.before_update([1.0] * 64, [10] * 64, 20) == []
    solved = Guards(GuardsConfig())
    for step in range(20):
        assert solved.before_update([100.0] * 64, [10] * 64, step) == []
    assert solved.before_update([0.0] * 64, [10] * 64, 20) == []


BAD: dict[str, tuple[dict[str, float], float, float, str]] = {
    # option: metrics of the bad step, value, limit, part of the text
    "kl.max_kl": ({"policy/approx_kl": 1.5}, 1.5, 1.0, "KL from before the update is 1.5 nats a token, above 1"),
    "kl.max_ref_kl": ({"policy/ref_kl": 12.0}, 12.0, 10.0, "KL to the starting policy is 12"),
    "entropy.min_frac": ({"policy/entropy": 1e-4}, 1e-4, math.nan, "entropy is 0.0001 nats a token, below 0.02 of 0.1"),
    "length.max_truncated_frac": ({"rollout/truncated_frac": 0.97}, 0.97, 0.95, "97.0% of the responses were cut"),
    "mismatch.max_gap": (
        {"guard/sampler_gap": 1.25}, 1.25, 1.0,
        "percentile 99 of the difference between the learner's and the sampler's log-probability of tokens sampled "
        "with the current weights is 1.25 nats, above 1",
    ),
    "mismatch.max_stale_gap": ({"guard/sampler_gap_stale": 4.0}, 4.0, 3.0, "sampled with older weights is 4 nats"),
}  # fmt: skip


@pytest.mark.parametrize("option", BAD)
@pytest.mark.parametrize("action", ["warn", "rollback", "stop", "off"])
def test_a_metric_that_goes_wrong_is_found_in_that_step(option: str, action: str) -> None:
    metrics, value, limit, text = BAD[option]
    guard = option.partition(".")[0]
    guards = warmed({guard: {"action": action}})
    rewards, lengths, good = healthy(10)
    found = feed(guards, 10, (rewards, lengths, good | metrics))
    if action == "off":
        assert found == []
        return
    (finding,) = found
    assert (finding.guard, finding.action, finding.value) == (guard, action, value)
    assert finding.limit == limit or math.isnan(limit)
    assert text in finding.text and finding.text.startswith("step 10: ")
    assert finding.details["option"] == f"guards.{option}"
    again = feed(guards, 11, (rewards, lengths, good | metrics))
    assert [f.action for f in again] == ([] if action == "warn" else [action])  # a warning is not repeated,
    assert feed(guards, 12, healthy(12)) == []
    assert len(feed(guards, 13, (rewards, lengths, good | metrics))) == 1  # but given anew after it was right


def test_entropy_below_an_absolute_limit() -> None:
    guards = warmed({"entropy": {"min_entropy": 0.05}})
    (finding,) = guards.after_update({"policy/entropy": 0.04}, 10)
    assert (finding.value, finding.limit) == (0.04, 0.05) and "0.04 nats a token, below 0.05" in finding.text


@pytest.mark.parametrize("action", ["warn", "skip", "rollback", "stop"])
def test_reward_explosion(action: str) -> None:
    guards = warmed({"reward": {"action": action}})
    rewards, lengths, _ = healthy(10)
    few = [5e3, *rewards[1:]]  # one in 64: noise with heavy tails does that
    assert guards.before_update(few, lengths, 10) == []
    (finding,) = guards.before_update([1e4 * (1 + r) for r in rewards], lengths, 11)
    assert (finding.guard, finding.action, finding.limit) == ("reward", action, 20.0)
    assert finding.value == pytest.approx(2e4, rel=1e-3)
    assert "100.0% of the observed rewards are more than 20 scales of 1 from the running median" in finding.text
    assert finding.details["far_frac"] == 1.0


def test_one_reward_above_the_absolute_limit() -> None:
    guards = Guards(GuardsConfig.model_validate({"reward": {"max_abs": 50.0, "action": "stop"}}))
    assert guards.before_update([1.0, -50.0], [3, 3], 0) == []
    (finding,) = guards.before_update([1.0, -51.0], [3, 3], 1)
    assert (finding.action, finding.value, finding.limit) == ("stop", 51.0, 50.0)
    assert finding.text == "step 1: an observed reward is 51 in size, above 50"


def test_one_explosion_does_not_move_what_is_compared_with_and_a_lasting_change_does() -> None:
    guards = warmed(steps=20)
    rewards, lengths, _ = healthy(0)
    big = [1e4 + r for r in rewards]
    assert len(guards.before_update(big, lengths, 20)) == 1
    assert guards.before_update(rewards, lengths, 21) == []
    assert len(guards.before_update(big, lengths, 22)) == 1
    found = [guards.before_update(big, lengths, step) for step in range(23, 100)]
    assert found == [[]] * 77  # warned once
    assert guards.state()["warned"] == []  # and taken for usual by now


def test_short_responses() -> None:
    guards = warmed({"length": {"action": "rollback"}})
    rewards, _, _ = healthy(10)
    (finding,) = guards.before_update(rewards, [20] * 64, 10)
    assert (finding.guard, finding.action, finding.value) == ("length", "rollback", 20.0)
    assert 45.0 < finding.limit < 60.0 and "20 tokens on average, below 0.25 of the usual 20" in finding.text


@pytest.mark.parametrize("action", ["skip", "rollback", "stop"])
def test_rewards_that_are_not_finite_are_found_before_the_update(action: str) -> None:
    guards = warmed({"nonfinite": {"action": action}})
    rewards, lengths, _ = healthy(10)
    (finding,) = guards.before_update([math.nan, math.inf, *rewards[2:]], lengths, 10)
    assert (finding.guard, finding.action, finding.value) == ("nonfinite", action, 2.0)
    assert finding.text == "step 10: 2 of 64 observed rewards are not finite"
    (finding,) = guards.before_update([math.nan] * 64, lengths, 11)
    assert finding.value == 64.0
    json.dumps(guards.state(), allow_nan=False)
    assert guards.before_update(rewards, lengths, 12) == []


def test_what_the_learner_skipped_is_named() -> None:
    guards = warmed()
    note = "update 10, epoch 0, mini-batch 1: the policy loss is not finite (nan) on rank 1"
    bad = {"guard/num_skipped_steps": 1.0, "guard/num_nonfinite_steps": 1.0}
    (finding,) = guards.after_update(bad, 10, [note])
    assert (finding.guard, finding.action, finding.value) == ("nonfinite", "skip", 1.0)
    assert note in finding.text and finding.details["notes"] == [note]


def test_too_many_skips_in_a_row_stop_the_run() -> None:
    guards = warmed({"max_consecutive_skips": 3, "reward": {"action": "skip", "max_abs": 10.0}})
    bad = {"guard/num_skipped_steps": 2.0, "guard/num_nonfinite_steps": 2.0}
    actions = [[f.action for f in guards.after_update(bad, step)] for step in range(3)]
    actions.append([f.action for f in guards.after_update({"guard/num_skipped_steps": 0.0}, 3)])
    assert actions == [["skip"]] * 3 + [[]]
    found = [guards.after_update(bad, 4), guards.before_update([15.0], [5], 5), guards.after_update(bad, 6)]
    assert [[f.action for f in step if f.guard != "length"] for step in found] == [["skip"]] * 3
    skip, stop = (f for f in guards.before_update([15.0], [5], 7) if f.guard != "length")
    assert (skip.guard, stop.guard, stop.action) == ("reward", "max_consecutive_skips", "stop")
    assert (stop.value, stop.limit) == (4.0, 3.0)
    assert stop.text == "step 7: 4 training steps in a row skipped something; 3 may"


def test_guards_from_a_saved_state_find_the_same() -> None:
    rng = random.Random(3)
    config = GuardsConfig.model_validate({"reward": {"action": "skip"}, "max_consecutive_skips": 2})
    one = other = Guards(config)
    kinds: set[str] = set()
    for step in range(150):
        rewards, lengths, metrics = healthy(step)
        kind = rng.choice(["good", "good", *BAD, "reward", "length"])
        if kind in BAD:
            metrics |= BAD[kind][0]
        rewards = [1e6 * (1 + r) for r in rewards] if kind == "reward" else rewards
        lengths = [1] * len(lengths) if kind == "length" else lengths
        other = Guards(config, json.loads(json.dumps(other.state(), allow_nan=False)))
        found = feed(one, step, (rewards, lengths, metrics))
        assert feed(other, step, (rewards, lengths, metrics)) == found
        kinds |= {finding.guard for finding in found}
    assert one.state() == other.state()
    assert kinds >= {"reward", "length", "kl", "entropy", "mismatch"}


def test_the_state_does_not_grow() -> None:
    guards = Guards(GuardsConfig())
    sizes = []
    for step in range(300):
        feed(guards, step, healthy(step % 200))
        state = guards.state()
        sizes.append((len(state["rewards"]), len(state["lengths"]), len(state["entropies"])))
    assert sizes[-1] == sizes[100] == (64, 64, 5)


def test_what_the_learner_is_told() -> None:
    limits = GuardsConfig().update_limits()  # warn: it measures, and goes on
    assert (limits.gap_percentile, limits.max_gap, limits.max_stale_gap) == (0.99, math.inf, math.inf)
    for action in ("skip", "rollback", "stop"):
        mismatch = {"action": action, "percentile": 0.9, "max_gap": 0.5, "max_stale_gap": None}
        limits = GuardsConfig.model_validate({"mismatch": mismatch}).update_limits()
        assert (limits.gap_percentile, limits.max_gap, limits.max_stale_gap) == (0.9, 0.5, math.inf)
    assert GuardsConfig.model_validate({"mismatch": {"action": "off"}}).update_limits().gap_percentile is None


@pytest.mark.parametrize("guard", ["kl", "entropy", "length"])
def test_what_shows_only_afterwards_cannot_be_skipped(guard: str) -> None:
    with pytest.raises(ValidationError, match="'off', 'warn', 'rollback' or 'stop'"):
        GuardsConfig.model_validate({guard: {"action": "skip"}})
    with pytest.raises(ValidationError, match="'skip', 'rollback' or 'stop'"):
        GuardsConfig.model_validate({"nonfinite": {"action": "off"}})

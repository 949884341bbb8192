"""The loop's own metrics of one training step, from records alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.groups import Group
from actors.loop.activity import seconds_with
from learner.metrics import to_floats
from learner.update.result import UpdateResult
from rollout.scoring.report import reward_metrics
from rollout.trajectory import FinishReason, TrajectorySummary


def rollout_metrics(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Lengths, staleness and rewards of the batch trained on at weight version ``version``."""
    summaries = [sample.summary for group in groups for sample in group.samples]
    lengths = [summary.num_response_tokens for summary in summaries]
    staleness = [version - summary.policy_version_min for summary in summaries]
    spread = [summary.policy_version_max - summary.policy_version_min for summary in summaries]
    cut = sum(summary.finish_reason is FinishReason.LENGTH for summary in summaries)
    return {
        "rollout/num_trajectories": float(len(summaries)),
        "rollout/num_dropped": float(sum(len(group.dropped) for group in groups)),
        "rollout/partial_group_frac": sum(len(g.samples) < g.num_samples for g in groups) / len(groups),
        "rollout/num_response_tokens": float(sum(lengths)),
        "rollout/response_tokens_mean": sum(lengths) / len(lengths),
        "rollout/response_tokens_max": float(max(lengths)),
        "rollout/num_turns": sum(summary.num_turns for summary in summaries) / len(summaries),
        "rollout/truncated_frac": cut / len(summaries),
        "rollout/staleness_mean": sum(staleness) / len(staleness),
        "rollout/staleness_max": float(max(staleness)),
        "rollout/mixed_version_frac": sum(width > 0 for width in spread) / len(spread),
        **reward_metrics([sample.reward for group in groups for sample in group.samples]),
        **_allotted(groups),
        **_zero_variance(groups),
        **_outcome_means(summaries),
    }


def _allotted(groups: Sequence[Group]) -> dict[str, float]:
    """How unequally samples were allotted to prompts, where they were."""
    if all(sample.weight == 1.0 for group in groups for sample in group.samples):
        return {}
    numbers = [group.num_samples for group in groups]
    return {"rollout/allotted_min": float(min(numbers)), "rollout/allotted_max": float(max(numbers))}


def update_metrics(result: UpdateResult) -> dict[str, float]:
    """What the learner reports of one update, and the seconds of each of its phases."""
    timings = {f"time/learner_{phase}_s": seconds for phase, seconds in result.timings.items()}
    return to_floats(result.metrics) | timings


def _outcome_means(summaries: Sequence[TrajectorySummary]) -> dict[str, float]:
    """Mean of each number that environments report, over the trajectories that have it."""
    names = dict.fromkeys(name for summary in summaries for name in summary.outcome_metrics)
    found = {name: [s.outcome_metrics[name] for s in summaries if name in s.outcome_metrics] for name in names}
    return {f"environment/{name}": sum(values) / len(values) for name, values in found.items()}


def _zero_variance(groups: Sequence[Group]) -> dict[str, float]:
    """Shares of the groups of several samples whose observed rewards, and whose clean ones, are all the same.

    The clean share is over the groups of which every clean score is known.
    """
    records = [[sample.reward for sample in group.samples] for group in groups if len(group.samples) > 1]
    scores = {
        "reward/zero_variance_group_frac": [{record.observed for record in group} for group in records],
        "reward/clean_zero_variance_group_frac": [
            {record.clean for record in group} for group in records if all(r.clean is not None for r in group)
        ],
    }
    return {name: sum(len(values) == 1 for values in found) / len(found) for name, found in scores.items() if found}


def activity_metrics(seconds: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Shares of wall time in which generation, training, or both ran."""
    table = dict(seconds)
    total = sum(table.values())
    generating, training = seconds_with(table, "generate"), seconds_with(table, "train")
    return {
        "time/wall_s": total,
        "time/generate_s": generating,
        "time/generate_frac": generating / total if total else 0.0,
        "time/train_frac": training / total if total else 0.0,
        "time/overlap_frac": seconds_with(table, "generate", "train") / total if total else 0.0,
    }


class EngineRates:
    """Turns vLLM's running totals into rates per step. The totals of a replaced engine begin anew."""

    def __init__(self) -> None:
        self._totals: dict[str, Mapping[str, float]] = {}

    def metrics(self, stats: Mapping[str, Mapping[str, float]], seconds: float) -> dict[str, float]:
        """Throughput over all engines since the last call, and their present load.

        Args:
            stats: by worker, from :meth:`rollout.sampling.vllm_engine.VllmEngine.stats`; workers being replaced have
                none.
            seconds: wall time since the last call.
        """
        grown = dict.fromkeys(("generated_tokens", "prompt_tokens", "preemptions"), 0.0)
        for worker, totals in stats.items():
            before = self._totals.get(worker, {})
            for name in grown:
                rise = totals[name] - before.get(name, 0.0)
                grown[name] += rise if rise >= 0.0 else totals[name]
        self._totals |= stats
        now = list(stats.values())
        return {
            "vllm/num_engines": float(len(now)),
            "vllm/generated_tokens_per_s": grown["generated_tokens"] / seconds,
            "vllm/prompt_tokens_per_s": grown["prompt_tokens"] / seconds,
            "vllm/num_preemptions": grown["preemptions"],
            "vllm/num_running": sum(one["running"] for one in now),
            "vllm/num_waiting": sum(one["waiting"] for one in now),
            "vllm/kv_cache_usage": sum(one["kv_cache_usage"] for one in now) / max(1, len(now)),
        }

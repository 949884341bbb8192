"""``dvpo audit``: how far the reward of a configuration can be trusted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

from cluster.audit.plot import draw_calibration, has_matplotlib
from cluster.audit.responses import Response, gold_responses, logged_responses
from cluster.config.run_config import RunConfig
from cluster.reward_model.local import local_scorers
from rollout.audit.advice import advised
from rollout.audit.cells.report import RepeatReport
from rollout.audit.features import response_features
from rollout.audit.latent_class import LatentRates, latent_rates
from rollout.audit.pairs import GoldPair, is_binary
from rollout.audit.phrases import Phrase, suspect_phrase
from rollout.audit.report import AuditReport, feature_correlations, gold_findings, outlier_share
from rollout.audit.retest import retest
from rollout.component.mistakes import Conflict, NothingScored, NotWritable
from rollout.scoring.record import RewardRecord
from rollout.scoring.service import RewardService

REPEATS = 2
"""How often each response is scored: the second time shows how far the reward agrees with itself."""
STRIDE = 1_000_000
"""Sample indices by which repetitions lie apart, in groups, so that injected noise draws anew."""
MIN_JUDGED = 20
"""Fewest responses that rates are estimated from by agreement between reward functions."""


def run_audit(
    config: RunConfig, gold_path: Path | None = None, num_samples: int | None = None, output: Path | None = None
) -> AuditReport:
    """Score responses as training would, noise included, and report what the scores are worth.

    Args:
        config: model (for its tokenizer), rewards and noise.
        gold_path: JSONL or Parquet file of gold-labelled responses, see :func:`cluster.audit.responses.gold_responses`;
            None takes the responses that a run of this configuration has logged, without labels.
        num_samples: most responses that are scored, chosen by the run's seed; None takes all.
        output: JSON file for the report; a calibration curve is drawn beside it as PNG where there are gold labels of
            0 and 1 and matplotlib is installed.

    Raises:
        UserError: a wrong reward or noise model, unreadable responses, or not one of them could be scored.
    """
    if config.reward.pseudo_labels is not None:
        raise Conflict(
            "reward.pseudo_labels: a vote has no score for a single response; audit without it, or watch "
            "votes/label_accuracy and trust/ during training"
        )
    if gold_path is not None:
        responses = gold_responses(config, gold_path, num_samples)
    else:
        responses = logged_responses(config, num_samples)
    records = asyncio.run(_score(config, responses))
    report = advised(_report(responses, records))
    if output is not None:
        _write(report, output)
    return report


async def _score(config: RunConfig, responses: Sequence[Response]) -> list[list[RewardRecord]]:
    """Each response's :data:`REPEATS` records."""
    group = config.training.samples_per_prompt
    reward = config.reward.model_copy(update={"gold": ()})  # it is the other rewards that are under audit
    # Without Ray: an actor is this same object in a process of its own.
    service = RewardService(reward, config.seed, group, local_scorers(config))
    try:
        records = []
        for repeat in range(REPEATS):
            offset = repeat * STRIDE * group
            again = [replace(r.trajectory, sample_index=r.trajectory.sample_index + offset) for r in responses]
            scored = (service.score(r.prompt, trajectory) for r, trajectory in zip(responses, again, strict=True))
            records.append(await asyncio.gather(*scored))
    finally:
        await service.close()
    return [list(row) for row in zip(*records, strict=True)]


def _report(responses: Sequence[Response], records: Sequence[Sequence[RewardRecord]]) -> AuditReport:
    """Everything but the advice.

    Raises:
        UserError: no response has a score.
    """
    unscored = Counter(row[0].outcome.value for row in records if row[0].observed is None)
    scored = [(r, row, row[0].observed) for r, row in zip(responses, records, strict=True)]
    kept = [(response, row, value) for response, row, value in scored if value is not None]
    if not kept:
        failed = records[0][0]
        raise NothingScored(
            f"not one of {len(responses)} responses could be scored; the first: {failed.outcome.value}: {failed.error}"
        )
    values = [value for _, _, value in kept]
    features = [response_features(r.trajectory.response_text, r.trajectory.num_response_tokens) for r, _, _ in kept]
    repeated = [[record.observed for record in row if record.observed is not None] for _, row, _ in kept]
    # A repetition that failed says nothing of how far the reward agrees with itself.
    complete = [row for row in repeated if len(row) == REPEATS]
    pairs = [
        GoldPair(prompt_id=response.prompt.prompt_id, observed=value, gold=response.gold, features=row)
        for (response, _, value), row in zip(kept, features, strict=True)
        if response.gold is not None
    ]
    # Where there are gold labels, the agreement of functions with each other adds nothing.
    judges, latent = ((), None) if pairs else _agreement([row[0] for _, row, _ in kept])
    return AuditReport(
        num_responses=len(kept),
        num_unscored=dict(unscored),
        observed_mean=fmean(values),
        observed_std=pstdev(values),
        is_binary=is_binary(values),
        feature_correlation=feature_correlations(values, features),
        gold=gold_findings(pairs) if pairs else None,
        retest=retest(complete) if complete else None,
        judges=judges,
        latent=latent,
        phrase=_spread_phrase([response for response, _, _ in kept], values),
        outlier_frac=outlier_share(values),
    )


def _agreement(records: Sequence[RewardRecord]) -> tuple[tuple[str, ...], LatentRates | None]:
    """Rates of three or more reward functions that all say 0 or 1, by their agreement; else none."""
    names = tuple(records[0].parts)
    verdicts = [[record.parts[name] for name in names] for record in records if set(record.parts) == set(names)]
    if len(names) < 3 or len(verdicts) < MIN_JUDGED or not all(map(is_binary, verdicts)):
        return (), None
    return names, latent_rates(verdicts)


def _spread_phrase(responses: Sequence[Response], values: Sequence[float]) -> Phrase | None:
    """What spread between the first and the last third of the steps; None where there are fewer than three steps."""
    steps = sorted({response.step for response in responses})
    if len(steps) < 3:
        return None
    early, late = steps[len(steps) // 3], steps[-(len(steps) // 3)]
    now = [(r.trajectory.response_text, value) for r, value in zip(responses, values, strict=True) if r.step >= late]
    before = [response.trajectory.response_text for response in responses if response.step < early]
    return suspect_phrase(before, [text for text, _ in now], [value for _, value in now])


def write_report(report: AuditReport | RepeatReport, output: Path) -> None:
    """Write a report as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise NotWritable(f"{output}: cannot be written: {error.strerror}") from error


def _write(report: AuditReport, output: Path) -> None:
    write_report(report, output)
    if report.gold is not None and report.gold.calibration is not None and has_matplotlib():
        draw_calibration({"reward": report.gold.calibration}, output.with_suffix(".png"))

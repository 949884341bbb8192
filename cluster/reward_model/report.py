"""How good a reward model is on pairs that it has not seen."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rollout.audit.calibration import Calibration, calibration
from rollout.audit.intervals import Estimate, wilson
from rollout.component.mistakes import NotWritable

REPORT = "reward_model_report.json"


@dataclass(frozen=True, slots=True)
class Quality:
    """Judgement on held-out pairs.

    Attributes:
        accuracy: share of pairs whose chosen answer scores higher, with the 95 % interval.
        calibration: of the confidence sig(|margin|) in the preferred answer.
        threshold: logit that best parts chosen from rejected answers of these pairs.
        false_positive_rate, false_negative_rate: share of rejected answers above it, of chosen ones not above it.
    """

    accuracy: Estimate
    calibration: Calibration
    threshold: float
    false_positive_rate: Estimate
    false_negative_rate: Estimate

    def lines(self) -> list[str]:
        """For the terminal."""
        error, floor = self.calibration.error or 0.0, self.calibration.noise_floor or 0.0
        return [
            f"accuracy on {self.accuracy.count} held-out pairs: {self.accuracy}",
            f"expected calibration error of sig(margin): {error:.3f} (a calibrated model would show {floor:.3f})",
            f"as a verdict (threshold {self.threshold:.3f}): false positives {self.false_positive_rate}, "
            f"false negatives {self.false_negative_rate}",
        ]

    def to_json(self) -> dict[str, Any]:
        """For the report file."""
        return asdict(self)


def judge(scores: Sequence[tuple[float, float]], groups: Sequence[str]) -> Quality:
    """Quality of a model from its scores of (chosen, rejected) answers.

    Args:
        groups: the prompt of each pair; pairs of one prompt are no independent evidence.
    """
    margins = [chosen - rejected for chosen, rejected in scores]
    right = [float(margin > 0.0) for margin in margins]
    confidence = [0.5 * (1.0 + math.tanh(0.5 * abs(margin))) for margin in margins]
    chosen, rejected = [pair[0] for pair in scores], [pair[1] for pair in scores]
    threshold = best_threshold(chosen, rejected)
    return Quality(
        accuracy=clustered_share(right, groups),
        calibration=calibration(confidence, right),
        threshold=threshold,
        false_positive_rate=clustered_share([float(score > threshold) for score in rejected], groups),
        false_negative_rate=clustered_share([float(score <= threshold) for score in chosen], groups),
    )


def clustered_share(hits: Sequence[float], groups: Sequence[str]) -> Estimate:
    """A share with Wilson's interval for as many independent observations as carry the same information.

    That number is the count over the design effect: the variance of the share with whole groups as units (the linear
    one of a ratio), over that of independent observations, at least 1.
    """
    count, share = len(hits), sum(hits) / len(hits)
    residuals: dict[str, float] = defaultdict(float)
    for hit, group in zip(hits, groups, strict=True):
        residuals[group] += hit - share
    effect = 1.0
    if 0.0 < share < 1.0 and len(residuals) > 1:
        correction = len(residuals) / (len(residuals) - 1)
        effect = max(1.0, correction * sum(r * r for r in residuals.values()) / (count * share * (1.0 - share)))
    elif share in (0.0, 1.0):  # nothing varies, so nothing tells how alike pairs of a prompt are
        effect = count / len(residuals)
    effective = max(1, round(count / effect))
    return replace(wilson(share * effective, effective), value=share, count=count)


def best_threshold(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Where 'above it is positive' has the best balanced accuracy: the middle between two neighbouring scores."""
    ordered = sorted([(score, 1) for score in positive] + [(score, 0) for score in negative])
    best, threshold = -1.0, 0.0
    num_below = [0, 0]
    for index, (score, label) in enumerate(ordered):
        num_below[label] += 1
        # No threshold parts equal scores, so it is tried after the last of them.
        if index + 1 < len(ordered) and ordered[index + 1][0] == score:
            continue
        j = num_below[0] / len(negative) - num_below[1] / len(positive)
        if j > best:
            following = ordered[index + 1][0] if index + 1 < len(ordered) else score
            best, threshold = j, (score + following) / 2.0
    return threshold


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Put the report beside the model.

    Raises:
        UserError: it cannot be written.
    """
    path = folder / REPORT
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise NotWritable(f"output: {path} cannot be written: {error.strerror}") from error

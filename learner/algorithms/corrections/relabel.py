"""OLR: a prompt's label is replaced by the majority answer once the policy comes to agree on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective, apply_globally
from learner.metrics import Mean
from rollout.component import StrictModel

Visit = tuple[int, float]
"""The majority's answer key among a prompt's samples, and the share of them that gave it."""


def slope_of(shares: Sequence[float]) -> float:
    """Slope of a straight line through the shares, one unit apart (least squares); 0 of fewer than two."""
    number = len(shares)
    if number < 2:
        return 0.0
    centre, mean = (number - 1) / 2, sum(shares) / number
    across = sum((t - centre) * (share - mean) for t, share in enumerate(shares))
    return across / sum((t - centre) ** 2 for t in range(number))


def accepted(history: Sequence[Visit], min_visits: int, min_slope: float) -> int | None:
    """The answer that takes the place of the label, or None (2604.03993).

    Only after ``min_visits`` visits; if the slope of the majority's share over all visits is at least ``min_slope``;
    and if the newest majority is the one that was the majority most often, with no other as often.
    """
    if len(history) <= min_visits or slope_of([share for _, share in history]) < min_slope:
        return None
    often = Counter(answer for answer, _ in history).most_common(2)
    is_tied = len(often) > 1 and often[0][1] == often[1][1]
    return None if is_tied or history[-1][0] != often[0][0] else history[-1][0]


def majorities(prompt_keys: Tensor, answer_keys: Tensor) -> dict[int, Visit]:
    """The visit of each prompt of the global batch [n]; of prompts without any answer there is none."""
    given: dict[int, list[int]] = {}
    for key, answer in zip(prompt_keys.tolist(), answer_keys.tolist(), strict=True):
        given.setdefault(key, []).append(answer)
    found: dict[int, Visit] = {}
    for key, answers in given.items():
        counts = Counter(answer for answer in answers if answer)  # 0 stands for no answer
        if counts:
            most = max(counts.values())
            found[key] = (min(answer for answer, count in counts.items() if count == most), most / len(answers))
    return found


class OnlineRelabel(RewardCorrection):
    """Online label refinement (2604.03993): reward 1 for the majority's answer where :func:`accepted` says so.

    Elsewhere the observed score stays. A visit of a prompt is one update with samples of it; its majority is the answer
    that most of them gave (``reward.answer_key``; of equal ones the smallest key, our choice). Rules and the
    least slope, 0.05, are those of the authors' program; after how many visits it begins is not known to us, and 3 our
    choice. Prompts must recur. What is known is the same on every rank and part of checkpoints.
    """

    reads_verdicts = True
    min_samples_per_prompt = 2
    needs_answers = True

    class Config(StrictModel):
        """Options of OLR."""

        min_slope: float = Field(
            0.05, description="Least rise of the majority's share of a prompt's samples per visit."
        )
        min_visits: int = Field(3, ge=1, description="Visits of a prompt before its label may be replaced.")
        low: float = Field(0.0, description="Score of a wrong response.")
        high: float = Field(1.0, description="Score of a right response.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.history: dict[int, list[Visit]] = {}

    def relabel(self, scores: Tensor, prompt_keys: Tensor, answer_keys: Tensor) -> Tensor:
        """New scores of the global batch, [n], and NaN where the observed one stays."""
        labels = {}
        for key, visit in majorities(prompt_keys, answer_keys).items():
            visits = [*self.history.get(key, []), visit]
            labels[key] = accepted(visits, self.config.min_visits, self.config.min_slope)
        found = torch.full_like(scores, torch.nan)
        for row, (key, answer) in enumerate(zip(prompt_keys.tolist(), answer_keys.tolist(), strict=True)):
            if (label := labels.get(key)) is not None:
                found[row] = self.config.high if answer == label else self.config.low
        return found

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        batch = current.batch
        columns = (batch.scores, batch.prompt_keys, batch.answer_keys)
        found = apply_globally(self.relabel, world, *columns)
        for key, visit in majorities(world.gather(batch.prompt_keys), world.gather(batch.answer_keys)).items():
            self.history.setdefault(key, []).append(visit)
        known = found.isfinite()
        scores = torch.where(known, found, batch.scores)
        count = float(scores.numel())
        return current.with_scores(
            scores,
            {
                "correction/relabel_prompts_frac": Mean(float(known.sum()), count),
                "correction/relabel_frac": Mean(float((scores != batch.scores).sum()), count),
                "correction/relabel_change": Mean(float((scores - batch.scores).double().abs().sum()), count),
            },
        )

    def state_dict(self) -> dict[str, Any]:
        """All visits, as plain numbers."""
        return {"history": {key: [list(visit) for visit in visits] for key, visits in self.history.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.history = {
            int(key): [(int(answer), float(share)) for answer, share in visits]
            for key, visits in state["history"].items()
        }

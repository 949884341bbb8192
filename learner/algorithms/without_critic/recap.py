"""RECAP: loss parts weighed by how they converge and how unsteady they are, with replay of earlier prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.base import without_effect
from learner.algorithms.invariance import Answer, answer_of
from learner.algorithms.records import Denominators, Estimates, OldOutputs, Rows
from learner.algorithms.without_critic.grpo import GRPO
from learner.algorithms.without_critic.replay import ReplayBuffer
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.metrics import Last
from rollout.trajectory import ScoredTrajectory

_EPS = 1e-8
_MOST = 5.0


@dataclass(frozen=True)
class Replayed(Rows):
    """Whether each trajectory was trained on before, [batch]: 1 or 0."""

    flags: Tensor


def objective_weights(history: Mapping[str, Sequence[float]], window: int, temperature: float) -> dict[str, float]:
    """``K * softmax((c_k + i_k) / T)`` with ``c_k = mu_k / mu'_k`` and ``i_k = sd_k / (mu_k + mu'_k)`` (2510.21978).

    mu_k and sd_k are mean and standard deviation (divided by n) of the last ``window`` values of loss part k, mu'_k the
    mean of the window before: a part that no longer falls and one that jumps get more weight. |mu| + 1e-8 stands for mu
    and both ratios are clipped to [0, 5] (our choice: loss parts may be negative or 0). The weights average 1; all are
    1 until every part has two full windows. Plain numbers, so nothing carries a gradient.
    """
    names = sorted(history)
    if not names or any(len(history[name]) < 2 * window for name in names):
        return dict.fromkeys(names, 1.0)
    signals = []
    for name in names:
        values = torch.tensor(list(history[name])[-2 * window :], dtype=torch.float64)
        before, now = values[:window], values[window:]
        size, size_before = abs(float(now.mean())) + _EPS, abs(float(before.mean())) + _EPS
        spread = float(now.std(correction=0))
        signals.append(min(size / size_before, _MOST) + min(spread / (size + size_before), _MOST))
    shares = torch.softmax(torch.tensor(signals, dtype=torch.float64) / temperature, dim=0)
    return {name: len(names) * float(share) for name, share in zip(names, shares, strict=True)}


class Recap(GRPO):
    """RECAP (2510.21978) on GRPO: ``L = sum_k weight_k * L_k`` with weights from :func:`objective_weights`.

    Objectives k are the named parts of the policy loss: ``surrogate``, ``kl`` and ``entropy`` (each with its
    coefficient), and ``replay``, the surrogate on replayed trajectories. Replay: whole groups of earlier updates are
    trained on again beside the fresh ones, corrected for their age by the truncated importance weight. The sum instead
    of the mean over k makes equal weights give exactly the loss of GRPO (our choice; a constant factor).

    Not done: the paper mixes in *general-domain* data under objectives of their own; here replay holds trajectories of
    the run itself, so mix general prompts and their rewards into ``data`` for that. Several rewards are one score
    before they reach the learner, so they cannot be objectives by themselves.
    """

    class Config(GRPO.Config):
        """Options of RECAP."""

        window: int = Field(5, ge=2, description="Updates in a window of the loss statistics.")
        temperature: float = Field(5.0, gt=0.0, description="T of the softmax; large makes the weights equal.")
        replay_frac: float = Field(0.25, ge=0.0, le=4.0, description="Replayed prompts per fresh prompt; 0 is off.")
        replay_capacity: int = Field(64, ge=1, description="Prompts (with all their samples) kept for replay.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.replay_frac == 0.0:
            without_effect(config, ("replay_capacity",), "with replay_frac 0")
        self.history: dict[str, list[float]] = {}
        self.weights: dict[str, float] = {}
        self.replay = ReplayBuffer(config.replay_capacity)
        self.num_fresh_groups = 0
        self._sums: dict[str, float] = {}
        self._sums_before: dict[str, float] = {}

    def select(self, samples: Sequence[ScoredTrajectory], update_index: int) -> Sequence[ScoredTrajectory]:
        """The fresh samples, then those of replayed prompts, drawn with ``update_index`` as the seed."""
        samples = super().select(samples, update_index)
        self.num_fresh_groups = len({sample.group_id for sample in samples})
        if self.config.replay_frac == 0.0:
            return samples
        replayed = self.replay.draw(round(self.config.replay_frac * self.num_fresh_groups), update_index)
        self.replay.add(samples)
        return [*samples, *replayed]

    def advantage_answer(self) -> Answer:
        """That of GRPO's advantages, which the estimation leaves as they are."""
        return answer_of(self.group_advantages) if type(self).estimate is Recap.estimate else Answer()

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Those of GRPO; groups are numbered in the order of :meth:`select`, so replayed ones come last."""
        found = super().estimate(batch, old, world)
        extra = dict(found.extra)
        if self.config.replay_frac > 0.0:
            extra[Replayed] = Replayed((batch.group_ids >= self.num_fresh_groups).to(batch.scores))
        weights = {f"policy/objective_weight_{name}": Last(weight) for name, weight in self.weights.items()}
        return replace(found, extra=extra, metrics=found.metrics | weights)

    def combine(self, parts: dict[str, Tensor], mask: Tensor, estimates: Estimates, counts: Denominators) -> Tensor:
        """The weighed sum of the parts; remembers each part's share of the global loss."""
        parts = dict(parts)
        replayed = estimates.carried(Replayed, Replayed)
        if replayed is not None:
            again = replayed.flags[:, None] > 0
            everything = parts.pop("surrogate")
            parts = {
                "surrogate": torch.where(again, 0.0, everything),
                "replay": torch.where(again, everything, 0.0),
                **parts,
            }
        shares = {name: self.aggregate(part, mask, counts) for name, part in parts.items()}
        for name, share in shares.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(share.detach())
        return torch.stack([self.weights.get(name, 1.0) * share for name, share in shares.items()]).sum()

    def end_step(self, taken: bool) -> None:
        """Count the parts of a step that was taken; those of a refused one may be anything."""
        if taken:
            self._sums_before = dict(self._sums)
        else:
            self._sums = dict(self._sums_before)

    def end_update(self, world: Collective, num_steps: int) -> None:
        """Add this update's mean of each part, over all ranks, to the history and find the next weights."""
        names = ["surrogate", "kl", "entropy", "replay"]
        local = torch.tensor([[self._sums.get(n, 0.0) for n in names] + [float(n in self._sums) for n in names]])
        everyone = world.gather(local.double()).sum(dim=0).tolist()
        for index, name in enumerate(names):
            if everyone[len(names) + index] > 0:
                values = [*self.history.get(name, []), everyone[index] / max(1, num_steps)]
                self.history[name] = values[-2 * self.config.window :]
        self._sums, self._sums_before = {}, {}
        self.weights = objective_weights(self.history, self.config.window, self.config.temperature)

    def state_dict(self) -> dict[str, Any]:
        """Windows and the replay buffer, as plain types; the same on every rank between updates."""
        return {**super().state_dict(), "history": self.history, "replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore windows, weights and the replay buffer."""
        super().load_state_dict(state)
        self.history = {name: list(values) for name, values in state["history"].items()}
        self.weights = objective_weights(self.history, self.config.window, self.config.temperature)
        self.replay.load_state_dict(state["replay"])

"""``evidence``: the reward becomes the probability that the response is right, given all that the run has seen."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.special import expit
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.corrections.evidence.cells import CellMemory, FloatArray, IntArray, places_of
from learner.algorithms.corrections.evidence.channel import CellTable, Channel, fit_channel
from learner.algorithms.corrections.evidence.content import EndStateProjection
from learner.algorithms.corrections.evidence.outcome_model import (
    NUM_BRIEF,
    NUM_SIGNALS,
    NUM_VOTES,
    OutcomeModel,
    signals_of,
    votes_of,
)
from learner.algorithms.corrections.evidence.window import Window
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective, apply_globally
from learner.metrics import Last
from rollout.component import StrictModel
from rollout.component.mistakes import UselessReward

MIN_GOLD = 20
"""Gold labels before error rates are estimated from them."""
MIN_REPEATED = 200
"""Cells with at least three scores before error rates are estimated without gold: fewer scores cannot tell two rates
and the share of right answers apart (three moments are needed)."""
CERTAIN = 60.0
"""Log-odds of what is known: large, and far from overflow."""
MAX_YOUDEN_STD = 0.25
"""Standard error of J = 1 - both rates above which scores are left alone: J is divided by, as it were."""


class Evidence(RewardCorrection):
    """Pools the scores of each answer, a value model on the frozen starting model's signals, and gold labels (ours).

    Error rates are estimated from gold labels (``reward.gold_labels``) and from repeats, and the reward of a response
    becomes the posterior probability that it is right: prior odds of the value model times the likelihood ratio of all
    scores of its answer; a known answer has its true reward. As long as the rates cannot be told, observed scores are
    handed on as they are, but for known answers.
    """

    needs_reference = True
    reads_gold = True
    reads_verdicts = True

    class Config(StrictModel):
        """Options of the correction."""

        low: float = Field(0.0, description="Score of a wrong response.")
        high: float = Field(1.0, description="Score of a right response.")
        memory: bool = Field(
            True, description="Whether scores and labels of an answer count for its later responses, and agreement."
        )
        value_model: bool = Field(True, description="Whether a value model gives the prior.")
        exclusive: bool = Field(False, description="Whether at most one answer to a prompt is right.")
        window: int = Field(8192, ge=256, description="Newest responses that the value model trains on.")
        num_batches: int = Field(
            32, ge=1, description="Optimiser steps of the value model in each update, on 256 of them each."
        )
        folds: int = Field(
            4, ge=2, description="Parts of the prompts; each is judged by a network trained on the others."
        )
        lr: float = Field(3e-3, gt=0.0, description="Learning rate of the value model.")
        weight_decay: float = Field(1.0, ge=0.0, description="Of the value model.")
        dropout: float = Field(0.4, ge=0.0, lt=1.0, description="Share of hidden units left out while it trains.")
        max_cells: int = Field(1_000_000, ge=1024, description="Answers remembered; the longest unseen are forgotten.")
        content: int = Field(
            32,
            ge=0,
            description="Numbers of the starting model's last hidden state that a further network of the value model "
            "reads beside its signals: what a response says, where they tell how sure it is. 0: none.",
        )
        seed: int = Field(0, ge=0, description="Of the value model.")

        @model_validator(mode="after")
        def _ordered(self) -> Evidence.Config:
            if self.low >= self.high:
                raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
            return self

    config: Evidence.Config

    def __init__(self, config: Evidence.Config) -> None:
        super().__init__(config)
        self.cells = CellMemory(config.max_cells)
        brief, full = NUM_BRIEF + NUM_VOTES, NUM_SIGNALS + NUM_VOTES
        views = (brief, full, full + config.content) if config.content else (brief, full)
        self.project = EndStateProjection(config.content, config.seed)
        self.model = OutcomeModel(config.folds, views, config.lr, config.weight_decay, config.dropout, config.seed)
        self.window = Window(views[-1])
        self.channel: Channel | None = None
        self.num_updates = 0

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`.

        Raises:
            UserError: a score or a gold label is not between ``low`` and ``high``.
        """
        assert old.ref_logprobs is not None and old.ref_entropy is not None and old.ref_end_states is not None
        batch, config = current.batch, self.config
        signals = signals_of(old.ref_logprobs, old.ref_entropy, batch.action_mask, batch.truncated).cpu()
        metrics: dict[str, float] = {}

        def estimate(seeds: Tensor, *columns: Tensor) -> Tensor:
            order = seeds.argsort(stable=True)  # the same on any number of ranks
            rewards, found = self._update(seeds[order], *(column[order] for column in columns))
            metrics.update(found)
            return torch.empty_like(rewards).index_copy(0, order, rewards)

        scores, gold = self._shares(batch.scores, "score"), self._shares(batch.gold_labels, "gold label")
        keys = batch.prompt_keys.cpu(), batch.answer_keys.cpu()
        states = old.ref_end_states.cpu() if config.content else signals[:, :0]
        shares = apply_globally(estimate, world, batch.sample_seeds.cpu(), signals, states, scores, gold, *keys)
        rewards = config.low + (config.high - config.low) * shares
        corrected = current.with_scores(rewards, {name: Last(value) for name, value in metrics.items()})
        if not self.is_identified:  # scores are as they were observed
            return corrected
        variances = (config.high - config.low) ** 2 * shares * (1.0 - shares)
        return replace(corrected, score_variances=variances.to(corrected.batch.scores))

    def _shares(self, values: Tensor, name: str) -> Tensor:
        """Scores [n] as shares of the way from wrong to right; NaN stays."""
        low, high = self.config.low, self.config.high
        shares = (values.double().cpu() - low) / (high - low)
        outside = (shares < -1e-6) | (shares > 1.0 + 1e-6)
        if bool(outside.any()):
            worst = float(values.cpu()[outside][0])
            raise UselessReward(
                f"algorithm.reward_correction: evidence reads scores from {low:g} (wrong) to {high:g} (right), and got "
                f"a {name} of {worst:g}; set its 'low' and 'high'"
            )
        return shares.clamp(0.0, 1.0)

    def _update(
        self,
        seeds: Tensor,
        signals: Tensor,
        states: Tensor,
        scores: Tensor,
        gold: Tensor,
        prompts: Tensor,
        answers: Tensor,
    ) -> tuple[Tensor, dict[str, float]]:
        """[n] rewards in [0, 1] of the whole batch, after what it says has been added to what is known."""
        config = self.config
        alone = answers == 0 if config.memory else torch.ones_like(answers, dtype=torch.bool)
        answers = torch.where(alone, seeds, answers)
        # What an algorithm replays, or a batch that is tried again, has been counted.
        fresh = ~torch.isin(seeds, self.window.seeds)
        rows = self.cells.rows(prompts.numpy(), answers.numpy(), self.num_updates)
        self.cells.count(rows[fresh.numpy()], scores[fresh].numpy(), gold[fresh].numpy())
        columns = [signals[:, :NUM_BRIEF], self._votes(rows, alone), signals[:, NUM_BRIEF:]]
        inputs = torch.cat([*columns, self.project(states)] if config.content else columns, dim=1)
        logits = self.logits(inputs, prompts)
        self.window.add(inputs[fresh], torch.stack([prompts, answers], dim=1)[fresh], seeds[fresh], config.window)
        in_window = self._forget_with_the_cells()
        self._fit(in_window)
        q = self._posterior(rows, logits.double())
        known = torch.from_numpy(self.cells.gold[rows])
        rewards = torch.where(known.isnan(), q if self.is_identified else scores, known)
        if config.value_model:
            self._train(in_window)
        self.num_updates += 1
        metrics = self._metrics(rows, rewards, scores)
        asked = ~gold.isnan()
        if bool(asked.any()):
            error = self._prior(logits[asked].double().numpy()) - gold[asked].numpy()
            metrics["correction/evidence_prior_brier"] = float((error**2).mean())
        return rewards, metrics

    def logits(self, inputs: Tensor, prompts: Tensor) -> Tensor:
        """[n 1 or 2] what the value model says: by signals, and by content too.

        Two networks read the signals, one those of the whole response only: which is better differs from task to task,
        and their mean is close to the better one on each that was tried.
        """
        of_views = self.model.logits(inputs, prompts)
        return torch.cat([of_views[:, :2].mean(dim=1, keepdim=True), of_views[:, 2:]], dim=1)

    def _votes(self, rows: IntArray, alone: Tensor) -> Tensor:
        """[n 2] how the answers of counted responses agree with all others to their prompts, see :func:`votes_of`."""
        cells = self.cells
        some, numbers = cells.neighbours(rows)
        totals = np.bincount(numbers, cells.num_scores[some])[numbers]
        num_others = torch.from_numpy(totals[places_of(rows, some)] - 1.0)
        num_others = torch.where(alone, 0.0, num_others)
        num_same = torch.where(alone, 0.0, torch.from_numpy(cells.num_scores[rows] - 1.0))
        return votes_of(num_same, num_others)

    def _metrics(self, rows: IntArray, rewards: Tensor, scores: Tensor) -> dict[str, float]:
        cells, channel = self.cells, self.channel
        metrics = {
            "correction/evidence_cells": float(len(cells)),
            "correction/evidence_gold": float(self._num_gold),
            "correction/evidence_known_share": float((~np.isnan(cells.gold[rows])).mean()),
            "correction/evidence_repeat_share": float((cells.num_scores[rows] > 1).mean()),
            "correction/evidence_change": float((rewards - scores).abs().mean()),
            "correction/evidence_identified": float(self.is_identified),
        }
        return metrics if channel is None else metrics | channel.metrics()

    @property
    def is_identified(self) -> bool:
        """Whether error rates are known well enough to be used."""
        c = self.channel
        if c is None or c.youden_std > MAX_YOUDEN_STD:
            return False
        # Without gold, "right" and "wrong" could change places: only a score that is better than chance tells.
        return self._num_gold >= MIN_GOLD or c.youden_j > 2.0 * c.youden_std

    @property
    def _num_gold(self) -> int:
        return int((~np.isnan(self.cells.gold)).sum())

    def _prior(self, logits: FloatArray) -> FloatArray:
        """[n] probabilities before any score, of the value model's logits [n views]."""
        return np.full(len(logits), 0.5) if self.channel is None else expit(self.channel.prior_logits(logits))

    def _forget_with_the_cells(self) -> IntArray:
        """[window] rows of the cells of the responses in the window, which drops those whose cell is forgotten."""
        rows = np.array([self.cells.row_of(prompt, answer) for prompt, answer in self.window.keys.tolist()], np.int64)
        self.window.keep(torch.from_numpy(rows >= 0))
        return rows[rows >= 0]

    def _fit(self, rows: IntArray) -> None:
        """Error rates, and how far to trust the value model, from the cells ``rows`` of the responses in the window."""
        if self._num_gold < MIN_GOLD and int((self.cells.num_scores >= 3).sum()) < MIN_REPEATED:
            return
        some, first = np.unique(rows[::-1], return_index=True)
        newest = torch.from_numpy(len(rows) - 1 - first)  # of the responses of each cell
        logits = self.logits(self.window.inputs[newest], self.window.keys[newest, 0]).double()
        cells = self.cells
        table = CellTable(cells.num_scores[some], cells.sum_scores[some], cells.gold[some], logits.numpy())
        self.channel = fit_channel(table, self.channel)

    def _evidence(self, rows: IntArray) -> FloatArray:
        """[n] log-odds that each cell is right, of what was seen of it; where its true reward is known, certainty."""
        assert self.channel is not None
        gold = self.cells.gold[rows]
        odds = self.channel.evidence(self.cells.num_scores[rows], self.cells.sum_scores[rows])
        return np.where(np.isnan(gold), odds, np.where(gold > 0.5, CERTAIN, -CERTAIN))

    def _posterior(self, rows: IntArray, logits: Tensor) -> Tensor:
        """[n] probability that each response's cell is right."""
        if self.channel is None:
            return torch.full((len(rows),), 0.5, dtype=torch.float64)
        cells = self.cells
        cells.prior_logit[rows] = self.channel.prior_logits(logits.numpy())
        some, prompts = cells.neighbours(rows) if self.config.exclusive else (rows, None)
        # A known cell is as it is, whatever was thought of it before.
        prior = np.where(np.isnan(cells.gold[some]), cells.prior_logit[some], 0.0)
        odds = (prior + self._evidence(some)).clip(-CERTAIN, CERTAIN)
        if prompts is None:
            return torch.from_numpy(expit(odds))
        weights = np.exp(odds)
        shares = weights / (1.0 + np.bincount(prompts, weights))[prompts]
        return torch.from_numpy(shares[places_of(rows, some)])

    def _train(self, rows: IntArray) -> None:
        """Some batches of the window, whose cells are ``rows``, with what is now known of each."""
        if self.channel is None:
            return
        evidence = torch.from_numpy(self._evidence(rows).clip(-CERTAIN, CERTAIN)).float()
        _, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
        weights = torch.from_numpy(1.0 / counts[inverse]).float()
        self.model.train(
            self.window.inputs, self.window.keys[:, 0], evidence, weights, self.config.num_batches, self.num_updates
        )

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered."""
        return {
            "cells": self.cells.state_dict(),
            "model": self.model.state_dict(),
            "project": self.project.state_dict(),
            "window": self.window.state_dict(),
            "channel": None if self.channel is None else asdict(self.channel),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.cells.load_state_dict(state["cells"])
        self.model.load_state_dict(state["model"])
        self.project.load_state_dict(state["project"])
        self.window.load_state_dict(state["window"])
        self.channel = None if state["channel"] is None else Channel(**state["channel"])
        self.num_updates = int(state["num_updates"])

"""What a run remembers of each answer to each prompt: how often it was scored, how, and its true reward if known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

_COLUMNS = {
    "prompt_keys": np.int64,
    "answer_keys": np.int64,
    "last_update": np.int64,
    "num_scores": np.float64,
    "sum_scores": np.float64,
    "gold": np.float64,
    "prior_logit": np.float64,
}
_EMPTY = {"gold": np.nan}
_SPARE = 1024
"""Rows by which the columns grow at least."""


class CellMemory:
    """Counts of cells; a cell is one answer to one prompt, whose responses have one true reward.

    Rows are numbered in the order in which cells were first seen, until the oldest are forgotten. All columns are
    [cells].

    Args:
        capacity: cells kept. Beyond that the ones longest unseen go, those without a gold label first.
    """

    prompt_keys: IntArray
    answer_keys: IntArray
    last_update: IntArray
    num_scores: FloatArray
    sum_scores: FloatArray
    gold: FloatArray
    prior_logit: FloatArray

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._size = 0
        self._rows: dict[tuple[int, int], int] = {}
        self._of_prompt: dict[int, list[int]] = {}
        self._columns = {name: np.zeros(_SPARE, kind) for name, kind in _COLUMNS.items()}

    def __len__(self) -> int:
        return self._size

    def __getattr__(self, name: str) -> Any:
        if name in _COLUMNS:
            return self._columns[name][: self._size]
        raise AttributeError(name)

    def rows(self, prompts: IntArray, answers: IntArray, update: int) -> IntArray:
        """[n] rows of some cells, which are made where they are new; valid until the next call.

        Args:
            prompts, answers: [n] keys.
            update: number of the update that sees them.
        """
        if len(self) + len(prompts) > self.capacity:
            self._forget(len(self) + len(prompts) - self.capacity)
        found = np.array([self._row(int(p), int(a)) for p, a in zip(prompts, answers, strict=True)], np.int64)
        self.last_update[found] = update
        return found

    def count(self, rows: IntArray, scores: FloatArray, gold: FloatArray) -> None:
        """Count one score of each response.

        Args:
            rows: [n] of their cells.
            scores: [n] observed, in [0, 1].
            gold: [n] true reward in [0, 1], or NaN.
        """
        np.add.at(self.num_scores, rows, 1.0)
        np.add.at(self.sum_scores, rows, scores)
        known = ~np.isnan(gold)
        self.gold[rows[known]] = gold[known]

    def row_of(self, prompt: int, answer: int) -> int:
        """Row of a cell that was added, or -1 if it has been forgotten."""
        return self._rows.get((prompt, answer), -1)

    def neighbours(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """All cells of the prompts of some cells.

        Returns:
            Their rows, each once, and the number of its prompt (from 0) for each of them.
        """
        prompts = dict.fromkeys(self.prompt_keys[rows].tolist())
        members = [self._of_prompt[prompt] for prompt in prompts]
        numbers = np.repeat(np.arange(len(members)), [len(some) for some in members])
        return np.array([row for some in members for row in some], np.int64), numbers

    def state_dict(self) -> dict[str, Any]:
        """All columns as tensors, for the checkpoint."""
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in _COLUMNS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._replace({name: state[name].numpy().copy() for name in _COLUMNS})

    def _row(self, prompt: int, answer: int) -> int:
        row = self._rows.get((prompt, answer))
        if row is not None:
            return row
        row = self._size
        if row == len(self._columns["gold"]):
            grown = max(_SPARE, row // 2)
            self._columns = {
                name: np.concatenate([column, np.zeros(grown, column.dtype)]) for name, column in self._columns.items()
            }
        self._size += 1
        for name, column in self._columns.items():
            column[row] = _EMPTY.get(name, 0)
        self._columns["prompt_keys"][row], self._columns["answer_keys"][row] = prompt, answer
        self._rows[prompt, answer] = row
        self._of_prompt.setdefault(prompt, []).append(row)
        return row

    def _forget(self, number: int) -> None:
        """Drop at least ``number`` cells, and an eighth of all, so that this is seldom done."""
        number = max(number, self.capacity // 8)
        # lexsort: the last key counts most. Stable, so that every rank forgets the same.
        order = np.lexsort((self.last_update, ~np.isnan(self.gold)))
        kept = np.sort(order[min(number, len(order)) :])
        self._replace({name: getattr(self, name)[kept] for name in _COLUMNS})

    def _replace(self, columns: dict[str, Any]) -> None:
        self._columns, self._size = columns, len(columns["gold"])
        keys = zip(columns["prompt_keys"].tolist(), columns["answer_keys"].tolist(), strict=True)
        self._rows = {key: row for row, key in enumerate(keys)}
        self._of_prompt = {}
        for row, prompt in enumerate(columns["prompt_keys"].tolist()):
            self._of_prompt.setdefault(prompt, []).append(row)


def places_of(rows: IntArray, some: IntArray) -> IntArray:
    """[n] where in ``some`` [m], each of them once and in any order, each of ``rows`` [n] is."""
    order = np.argsort(some)
    places: IntArray = order[np.searchsorted(some, rows, sorter=order)]
    return places

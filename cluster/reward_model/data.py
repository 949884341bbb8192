"""Preference pairs from files, tokenised, and parted into those that are trained on and those that are held out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.reward_model.config import RewardModelConfig
from learner.reward_model.model import RewardModel, TooLong
from learner.reward_model.training import TokenizedPair
from rollout.component import UserError
from rollout.component.mistakes import Conflict, TooFewQuestions
from rollout.data.preference_pairs import read_pair
from rollout.tasks.questions import BadRow
from rollout.tasks.row_errors import RowErrors
from rollout.tasks.rows import find_files, read_rows

DEFAULT_EVAL_FRAC = 0.1
MIN_HELD_OUT = 2


@dataclass(frozen=True, slots=True)
class GroupedPair:
    """A pair and the prompt it belongs to."""

    pair: TokenizedPair
    group: str


@dataclass(frozen=True, slots=True)
class PairData:
    """What to train on and what to measure with.

    Attributes:
        findings: the rejected rows.
    """

    train: Sequence[GroupedPair]
    held_out: Sequence[GroupedPair]
    findings: RowErrors


def load_pairs(config: RewardModelConfig, model: RewardModel) -> PairData:
    """Read, tokenise and part the pairs of ``config``.

    Raises:
        UserError: bad rows (the first few with file and line), too few pairs, or prompts that are on both sides.
    """
    findings = RowErrors()
    train = _read("train", config.train, config, model, findings)
    held_out = _read("eval", config.eval, config, model, findings)
    findings.raise_if_any()
    if config.eval:
        _refuse_shared(train, held_out)
    else:
        train, held_out = _hold_out(train, config.eval_frac or DEFAULT_EVAL_FRAC, config.seed)
    if len(held_out) < MIN_HELD_OUT:
        raise TooFewQuestions(f"eval: {len(held_out)} pairs are held out, too few to say how good the model is")
    # After the held-out pairs are set apart, so that runs of different sizes are measured on the same ones.
    if config.num_train_pairs is not None:
        if config.num_train_pairs > len(train):
            raise TooFewQuestions(
                f"num_train_pairs: there are {len(train)} pairs to train on, not {config.num_train_pairs}"
            )
        train = random.Random(config.seed).sample(train, config.num_train_pairs)
    return PairData(train, held_out, findings)


def _read(
    key: str, patterns: Sequence[str], config: RewardModelConfig, model: RewardModel, findings: RowErrors
) -> list[GroupedPair]:
    found: list[GroupedPair] = []
    paths = [path for index, pattern in enumerate(patterns) for path in _files(f"{key}.{index}", pattern, findings)]
    # A file that two patterns match is read once.
    for path in dict.fromkeys(paths):
        num_before = findings.num_rows[key]
        for row in read_rows(path):
            findings.num_rows[key] += 1
            try:
                pair = read_pair(row)
                rows = []
                for column, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
                    try:
                        rows.append(model.encode((*pair.prompt, *answer)))
                    except TooLong as error:
                        raise BadRow(f"with {column!r}, {error} (max_tokens)") from error
                found.append(GroupedPair(TokenizedPair(*rows), pair.group))
            except BadRow as problem:
                if config.on_bad_row == "error":
                    findings.add(f"{row.place}: {problem}")
                else:
                    findings.reject(key, path, row, str(problem))
        if findings.num_rows[key] == num_before:
            findings.add(f"{key}: {path}: the file has no rows")
    return found


def _files(key: str, pattern: str, findings: RowErrors) -> list[Path]:
    try:
        return find_files(pattern)
    except UserError as error:
        findings.add(f"{key}: {error}")
        return []


def _hold_out(pairs: Sequence[GroupedPair], frac: float, seed: int) -> tuple[list[GroupedPair], list[GroupedPair]]:
    """Part whole prompts, so that no held-out prompt has been trained on."""
    groups = sorted({pair.group for pair in pairs})
    if len(groups) < 2:
        raise TooFewQuestions(f"train: {len(pairs)} pairs of {len(groups)} prompts; none can be held out, give 'eval'")
    number = min(len(groups) - 1, max(1, round(frac * len(groups))))
    chosen = set(random.Random(seed).sample(groups, number))
    return [pair for pair in pairs if pair.group not in chosen], [pair for pair in pairs if pair.group in chosen]


def _refuse_shared(train: Sequence[GroupedPair], held_out: Sequence[GroupedPair]) -> None:
    shared = {pair.group for pair in train} & {pair.group for pair in held_out}
    if shared:
        raise Conflict(
            f"eval: {len(shared)} prompts are in 'train' as well, for example {min(shared)!r:.80}; what is trained on "
            "cannot measure the model"
        )

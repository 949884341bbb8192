"""The report on a ledger as lines of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from actors.ledger.account import Account, EpochAccount, Lengths, ReissueAccount
from actors.ledger.report import LedgerReport

MAX_EPOCHS, MAX_REASONS, MAX_NAMES = 12, 12, 8
"""What the text shows of each; ``--json`` shows all."""


def report_lines(report: LedgerReport) -> list[str]:
    """Everything, with the verdict on the last line."""
    account = report.account
    lines = [_heading(report), ""]
    lines += _table(list(account.states), [[str(count) for count in account.states.values()]])
    lines += ["", *_epoch_lines(account.epochs)] if account.epochs else []
    lines += _dropped_lines(account)
    lines += _reissue_lines(account.reissues)
    lines += ["", _restart_line(account), _quarantine_line(account)]
    lines += ["", *(f"note: {note}" for note in report.metrics.notes)] if report.metrics.notes else []
    lines += ["", *(f"violation: {text}" for text in report.violations)] if report.violations else ["", _proof(report)]
    return [*lines, report.verdict]


def _heading(report: LedgerReport) -> str:
    account = report.account
    steps = f"{account.last_step} steps committed" if account.last_step else "no step committed"
    mark = account.checkpoint_step
    checkpoint = "no checkpoint marked" if mark is None else f"last checkpoint marked at step {mark}"
    return (
        f"ledger of {report.run_dir}: {account.num_prompts} prompts an epoch, {account.samples_per_prompt} samples a "
        f"prompt; {steps}, {checkpoint}"
    )


def _epoch_lines(epochs: Sequence[EpochAccount]) -> list[str]:
    """One line an epoch; the oldest are summed where there are many."""
    split = max(0, len(epochs) - MAX_EPOCHS)
    early, late = epochs[:split], epochs[split:]
    rows = [_epoch_row(f"{early[0].epoch}-{early[-1].epoch}", early)] if early else []
    rows += [_epoch_row(str(epoch.epoch), [epoch]) for epoch in late]
    return _table(["epoch", "prompts", "admitted", "complete", "trained", "dropped", "waiting"], rows)


def _epoch_row(name: str, epochs: Sequence[EpochAccount]) -> list[str]:
    numbers = [
        sum(epoch.num_prompts for epoch in epochs),
        sum(epoch.num_admitted for epoch in epochs),
        sum(epoch.num_complete for epoch in epochs),
        sum(epoch.num_trained for epoch in epochs),
        sum(sum(epoch.dropped.values()) for epoch in epochs),
        sum(epoch.num_waiting for epoch in epochs),
    ]
    return [name, *map(str, numbers)]


def _dropped_lines(account: Account) -> list[str]:
    counts: Counter[str] = Counter()
    for epoch in account.epochs:
        counts.update(epoch.dropped)
    if not counts:
        return []
    shown = counts.most_common(MAX_REASONS)
    rows = [[str(count), _epochs_of(reason, account.epochs), reason] for reason, count in shown]
    rest = len(counts) - len(shown)
    more = [f"... and {counts.total() - sum(count for _, count in shown)} for {rest} other reasons"] if rest else []
    return ["", *_table(["dropped", "epochs", "reason"], rows, num_right=2), *more]


def _epochs_of(reason: str, epochs: Sequence[EpochAccount]) -> str:
    found = [epoch.epoch for epoch in epochs if reason in epoch.dropped]
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _reissue_lines(reissues: ReissueAccount) -> list[str]:
    if not reissues.num_by_cause:
        return ["", "asked for again: no sample"]
    rows = [
        [str(number), str(reissues.lengths_by_cause[cause].num_samples), _mean(reissues.lengths_by_cause[cause]), cause]
        for cause, number in reissues.num_by_cause.items()
    ]
    rows.append(["", str(reissues.again.num_samples), _mean(reissues.again), "(all that were asked for again)"])
    rows.append(["", str(reissues.others.num_samples), _mean(reissues.others), "(all others)"])
    lines = ["", *_table(["asked again", "trained", "mean tokens", "cause"], rows, num_right=3)]
    if math.isfinite(reissues.difference):
        difference, error = reissues.difference, reissues.difference_error
        lines.append(f"asked again minus others of the same step: {difference:+.2f} ± {error:.2f} tokens")
    return lines


def _mean(lengths: Lengths) -> str:
    """``34.5 ± 1.2``: mean and standard error, or ``-``."""
    if not lengths.num_samples:
        return "-"
    error = f"{lengths.standard_error:.2f}" if math.isfinite(lengths.standard_error) else "-"
    return f"{lengths.mean:.2f} ± {error}"


def _restart_line(account: Account) -> str:
    if not account.num_rollbacks:
        return "undone by restarts: nothing"
    steps, restarts = account.num_undone_steps, account.num_rollbacks
    return (
        f"undone by restarts: {account.num_undone_samples} trained samples of {steps} step{'s' * (steps != 1)}, in "
        f"{restarts} restart{'s' * (restarts != 1)}"
    )


def _quarantine_line(account: Account) -> str:
    names = account.quarantined
    more = f", ... ({len(names)} in all)" if len(names) > MAX_NAMES else ""
    return f"quarantined prompts: {', '.join(names[:MAX_NAMES]) or 'none'}{more}"


def _proof(report: LedgerReport) -> str:
    account = report.account
    num_groups = sum(epoch.num_admitted for epoch in account.epochs)
    if not num_groups:
        return "proved: nothing was admitted yet"
    steps = (
        f"steps 1 to {account.last_step} were committed once each, with the samples that say so; "
        f"{report.metrics.num_steps} of them agree with metrics.jsonl"
    )
    number = account.num_replacements
    replaced = f"{number} more take the places of dropped ones, one each; " if number else ""
    return (
        f"proved: places 0 to {num_groups - 1} of the sequence have no gap; each prompt has its "
        f"{account.samples_per_prompt} samples, each in one state; {replaced}no prompt is missing from an epoch "
        f"or in it twice; {steps if account.last_step else 'no step was committed'}"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], num_right: int | None = None) -> list[str]:
    """Aligned columns; the first ``num_right`` (all by default) to the right."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    right = len(header) if num_right is None else num_right
    return [
        "  ".join(
            cell.rjust(width) if place < right else cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]

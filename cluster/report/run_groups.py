"""Several runs side by side: which belong together, and what sets the others apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.report.run_record import RunRecord

OF_ONE_RUN = ("name", "seed", "output_dir")
"""Settings in which runs of one method differ."""
_SEED = re.compile(r"[-_. ]*seed[-_. ]*\d*$|[-_. ]+$")
NO_MATTER = ("logging.", "cluster.", "recovery.")
"""Settings that change no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that differ by their seed only.

    Attributes:
        label: short, and unlike that of any other group.
        members: numbers of the runs.
    """

    label: str
    members: tuple[int, ...]


def group_runs(runs: Sequence[RunRecord]) -> list[Group]:
    """Put runs of the same settings together, in the order of their first one.

    Two runs of one seed are no two seeds: they stay apart, and so does a run whose settings are not known.
    """
    found: list[tuple[dict[str, str], list[int]]] = []
    for number, run in enumerate(runs):
        own = _shared_settings(run)
        seed = run.settings.get("seed")
        for settings, members in found:
            if own and settings == own and all(runs[m].settings.get("seed") != seed for m in members):
                members.append(number)
                break
        else:
            found.append((own, [number]))
    labels = _labels([[runs[number] for number in members] for _, members in found])
    return [Group(label=label, members=tuple(m)) for label, (_, m) in zip(labels, found, strict=True)]


def differing_settings(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all groups: the key, and each group's value, '-' where it is not there."""
    tables = [_shared_settings(runs[group.members[0]]) for group in groups]
    keys = sorted({key for table in tables for key in table})
    rows = [(key, [table.get(key, "-") for table in tables]) for key in keys]
    differing = [(key, values) for key, values in rows if len(set(values)) > 1]
    # What all have says more than options that only some methods know.
    return sorted(differing, key=lambda row: "-" in row[1])


def _shared_settings(run: RunRecord) -> dict[str, str]:
    settings = run.settings.flat()
    return {key: value for key, value in settings.items() if key not in OF_ONE_RUN and not key.startswith(NO_MATTER)}


def _labels(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """What the names of a group begin with, or the folder that its runs lie in: a study's cell is METHOD/seed-N."""
    labels = []
    for group in groups:
        parents = {run.folder.resolve().parent.name for run in group}
        stem = _stem([run.name for run in group])
        labels.append(stem or (parents.pop() if len(parents) == 1 else group[0].settings.algorithm))
    return [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _stem(names: Sequence[str]) -> str:
    """What all names begin with, without a seed; empty if they are nothing but seeds."""
    common = names[0] if len(names) == 1 else _beginning(names).rstrip("0123456789")
    return "" if _SEED.fullmatch(common) else _SEED.sub("", common)


def _beginning(names: Sequence[str]) -> str:
    """What all of some names begin with."""
    shortest = min(names, key=len)
    size = next((i for i, letter in enumerate(shortest) if any(name[i] != letter for name in names)), len(shortest))
    return shortest[:size]

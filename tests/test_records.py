"""Records: built by keyword only, and nothing that could hold a clean score crosses over to the learner."""

from __future__ import annotations

import ast
import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

import rollout.scoring.record
import rollout.trajectory
from actors.calls.chunks import Place
from actors.workers.learner_worker import LearnerWorker
from learner.update.result import UpdateResult
from rollout.tasks.dialogue.script import Script
from rollout.tasks.dialogue.user import SimulatedUser
from rollout.trajectory import FinishReason, Label, ScoredTrajectory, TokenTrajectory, Trajectory

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("rollout", "learner", "actors", "cluster", "benchmarks", "examples", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_POSITIONAL_FIELDS = 3


def large_records(module: ModuleType) -> dict[str, type[Any]]:
    """The dataclasses of a module with more than three fields, by name."""
    return {
        name: found
        for name, found in vars(module).items()
        if dataclasses.is_dataclass(found)
        and isinstance(found, type)
        and found.__module__ == module.__name__
        and len(dataclasses.fields(found)) > MAX_POSITIONAL_FIELDS
    }


LARGE = large_records(rollout.trajectory) | large_records(rollout.scoring.record)


def positional_calls(text: str) -> Iterator[str]:
    """``line: NAME(...)`` for each large record that is built with a positional argument, also as ``cls``."""

    def visit(node: ast.AST, aliases: dict[str, str], inside: str) -> Iterator[str]:
        if isinstance(node, ast.ClassDef):
            inside = node.name
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = inside if called == "cls" else aliases.get(called, called)
            if name in LARGE:
                yield f"{node.lineno}: {name}(...)"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, aliases, inside)

    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = {alias.asname: alias.name for node in imports for alias in node.names if alias.asname}
    yield from visit(tree, aliases, "")


def test_there_are_records_to_look_at() -> None:
    names = {
        "Label",
        "Prompt",
        "RewardRecord",
        "ScoredTrajectory",
        "TokenTrajectory",
        "Trajectory",
        "TrajectorySummary",
    }
    assert names == set(LARGE)
    for record in LARGE.values():
        assert all(field.kw_only for field in dataclasses.fields(record)), record


def test_no_large_record_is_built_with_positional_arguments() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{found}"
        for path in FILES
        if any(name in (text := path.read_text(encoding="utf-8")) for name in LARGE)
        for found in positional_calls(text)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "Prompt('p', messages=())",
        "def f(): return record.RewardRecord(*columns)",
        "from rollout.trajectory import Trajectory as T\nT('p', 0)",
        "class TrajectorySummary:\n    @classmethod\n    def of(cls, t): return cls(t.trajectory_id)",
    ],
)
def test_each_way_of_building_one_positionally_is_seen(text: str) -> None:
    assert len(list(positional_calls(text))) == 1


def types_inside(record: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    """Every field of a record and of the records in it, with each plain type that its values are made of."""
    for name, hint in get_type_hints(record).items():
        pending = [hint]
        while pending:
            found = pending.pop()
            if get_args(found):
                pending += [argument for argument in get_args(found) if argument is not ...]
            elif isinstance(found, type) and dataclasses.is_dataclass(found):
                yield from types_inside(found)
            else:
                yield name, found


def test_what_the_learner_is_sent_has_no_field_for_a_clean_score() -> None:
    """No mapping, no free object, no text but names; and of all fields four hold fractions, one of them on purpose."""
    found = list(types_inside(ScoredTrajectory))
    assert {kind for _, kind in found} == {str, int, bool, float, FinishReason, type(None)}
    assert {name for name, kind in found if kind is float} == {"reward", "rollout_logprobs", "gold_label", "weight"}
    assert {name for name, kind in found if kind is type(None)} == {"gold_label"}
    assert {name for name, kind in found if kind is str} == {"prompt_id", "group_id", "question_key", "answer_key"}


SCRIPT = Script(
    domain="transport",
    opening="trip",
    given=True,
    values=("rome", "mon", "two"),
    withheld=(False, False, False),
    slips=("", "", ""),
    change=None,
)


def spoken() -> Trajectory:
    """A conversation with a simulated user, whose outcome tells the clean score."""
    user = SimulatedUser(SCRIPT, 8)
    assert user.hear(f"book {' '.join(SCRIPT.final_record)}") is None
    assert user.outcome().metrics["tcr"] == 1.0
    return Trajectory(
        prompt_id="transport-1",
        sample_index=3,
        token_ids=(1, 2, 3),
        action_mask=(False, True, True),
        rollout_logprobs=(0.0, -0.5, -0.25),
        response_text="the-policy-said-this",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=1,
        engine="rollout-7",
        messages=({"role": "user", "content": "the-user-said-this"},),
        outcome=user.outcome(),
    )


class Listening(LearnerWorker):
    """A learner's process that keeps what it would train on."""

    def update(self, samples: Sequence[ScoredTrajectory], update_index: int, critic_only: bool = False) -> UpdateResult:
        self.seen = pickle.dumps(list(samples))
        return UpdateResult({}, {})


def test_what_the_learner_is_sent_has_neither_outcome_nor_texts() -> None:
    trajectory, worker = spoken(), Listening()
    secrets = [b"the-policy-said-this", b"the-user-said-this", b"tcr", b"goal", b"Outcome", b"rollout-7"]
    assert all(secret in pickle.dumps(trajectory) for secret in secrets)
    worker.train(0, False, None, [Label(reward=1.0, group_id="transport-1@0")], [Place(0, None)], trajectory)
    assert not [secret for secret in secrets if secret in worker.seen]
    (sample,) = pickle.loads(worker.seen)
    assert (sample.reward, sample.group_id) == (1.0, "transport-1@0")
    assert sample.trajectory == trajectory.for_learner()


@pytest.mark.parametrize("name", ["outcome", "messages", "response_text", "failure", "engine"])
def test_a_scored_trajectory_drops_what_the_learner_may_not_see(name: str) -> None:
    """Whoever builds it, and whatever is asked of it."""
    sample = ScoredTrajectory(trajectory=spoken(), reward=1.0, group_id="g")
    assert type(sample.trajectory) is TokenTrajectory
    assert not hasattr(sample.trajectory, name)
    assert type(dataclasses.replace(sample, trajectory=spoken()).trajectory) is TokenTrajectory

"""Writes errors.md from the source: each kind of error by its code, and the messages of that kind.

python docs/list_errors.py          # writes docs/errors.md; a test compares it with the source
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"
FLOORS = ("rollout", "learner", "actors", "cluster")
ROOT_CLASS = "UserError"
PAGES = {
    "rollout.tasks.dialogue": "dialogue",
    "rollout.tasks.libraries": "tasks",
    "rollout.tasks": "data",
    "rollout.data": "data",
    "rollout.rewards": "rewards",
    "rollout.scoring": "rewards",
    "rollout.noise": "noise",
    "rollout.audit": "audit",
    "rollout.conversation": "environments",
    "rollout.sampling": "gpus",
    "learner.algorithms": "algorithms",
    "learner.reward_model": "reward_model",
    "learner": "operations",
    "actors.ledger": "ledger",
    "actors.recording": "metrics",
    "actors.guards": "guards",
    "actors": "operations",
    "cluster.study": "study",
    "cluster.report": "report",
    "cluster.audit": "audit",
    "cluster.reward": "rewards",
    "cluster.reward_model": "reward_model",
    "cluster.reward_test": "rewards",
    "cluster.api": "api",
    "cluster.warmstart": "tasks",
    "rollout": "data",
    "cluster": "operations",
}
"""The page about what a module does, by the longest prefix."""
GROUPS = {
    "config": "Configuration",
    "command": "Command line",
    "file": "Files",
    "disk": "Files",
    "data": "Data",
    "code": "Code of yours",
    "package": "Packages",
    "model": "Models",
    "checkpoint": "Runs and checkpoints",
    "run": "Runs and checkpoints",
    "cluster": "Cluster and machine",
    "machine": "Cluster and machine",
    "reward": "Rewards",
}
"""Heading by the first word of a code, in the order of the page."""
BY_OTHERS = {"BadRow": "DataRow", "_BadLine": "BadLine"}
"""What is raised inside and told as another kind."""
HEAD = """# Errors

An error ends in a code in brackets, such as `[config-unknown-key]`: look for it here. The message itself says what is
wrong, where (file and line, or key), and what would be right. A mistake in what you gave is told before anything is
started, with exit status 2; codes that begin with `run-` are, with few exceptions, of runs that were going on, with
exit status 1, and `error.txt` in the run's folder has the traceback. An error that your own code raises as
`rollout.component.UserError` has no code.

This page is made from the source (`python docs/list_errors.py`), and a test compares the two. `…` stands for what is
yours, such as a file, a key or a value, and for parts that several messages share. What pydantic finds in a
configuration is told with the key's own sentence (`dvpo schema` has all), so of such kinds there are more messages than
are listed.

"""


@dataclass(slots=True)
class Kind:
    """One class of errors.

    Attributes:
        code: what its messages end in.
        meaning: the class's sentence.
        messages: by the page that is about what raises them.
    """

    code: str
    meaning: str
    messages: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


@cache
def sources() -> tuple[tuple[str, list[ast.AST]], ...]:
    """Module of each file, and everything that is in it."""
    paths = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return tuple((name, list(ast.walk(ast.parse(path.read_text())))) for name, path in zip(names, paths, strict=True))


def template(node: ast.expr) -> str:
    """A message with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


def kinds() -> tuple[dict[str, Kind], dict[str, str]]:
    """Kinds by code, and the code of each class that is raised, those that have it of their base included."""
    found: dict[str, Kind] = {}
    codes, bases = {}, {}
    for _, nodes in sources():
        for node in nodes:
            if not isinstance(node, ast.ClassDef):
                continue
            bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
                    code = ast.literal_eval(line.value)
                    if code in found:
                        raise ValueError(f"two classes have the code {code}")
                    found[code] = Kind(code, " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()))
                    codes[node.name] = code
    for name in bases:
        heirs = [codes[base] for base in bases[name] if base in codes]
        codes |= {name: heirs[0]} if heirs and name not in codes else {}
    return found, codes | {inner: codes[told] for inner, told in BY_OTHERS.items()}


def raised() -> Iterator[tuple[str, str, str]]:
    """Module, class and message of each place that makes an error out of text of its own."""
    for module, nodes in sources():
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                text = " ".join(re.sub(r"…(\s*…)+", "…", template(node.args[0])).split())
                if re.search(r"[a-z]{3}", text):
                    yield module, node.func.id, text


def page_of(module: str) -> str:
    """The page about a module."""
    return PAGES[max((prefix for prefix in PAGES if f"{module}.".startswith(f"{prefix}.")), key=len)]


def catalogue() -> str:
    """The page."""
    found, codes = kinds()
    for module, name, text in raised():
        if name in codes:
            found[codes[name]].messages[page_of(module)].add(text)
    parts, written = [HEAD], ""
    for kind in sorted(found.values(), key=lambda kind: (list(GROUPS).index(kind.code.split("-")[0]), kind.code)):
        heading = GROUPS[kind.code.split("-")[0]]
        parts += [f"## {heading}\n\n"] if heading != written else []
        written = heading
        pages = ", ".join(f"[{page}.md]({page}.md)" for page in sorted(kind.messages))
        meaning = re.sub(r"``|:\w+:`([^`]*)`", lambda m: f"`{m[1]}`" if m[1] else "`", kind.meaning)
        parts.append(f"### {kind.code}\n\n{meaning}" + (f" More: {pages}." if pages else "") + "\n\n")
        rows = sorted(set().union(*kind.messages.values()), key=str.casefold)
        parts.append("".join(f"- `{row.replace('`', chr(39))}`\n" for row in rows) + ("\n" if rows else ""))
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(catalogue(), encoding="utf-8")

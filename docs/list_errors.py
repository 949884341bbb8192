"""Writes errors.md from the source: messages about a mistake of a user's, and the page that is about each.

python docs/list_errors.py          # writes docs/errors.md; a test compares it with the source
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"
FLOORS = ("rollout", "learner", "actors", "cluster")
RAISED = {"UserError", "BadRow"}
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
HEAD = """# Errors

Messages about a mistake in what you gave, as the source has them where they are raised. This page is made from it
(`python docs/list_errors.py`), and a test compares the two. A message says what is wrong, where, and what would be
right; the exit status is 2, and nothing was started. `…` stands for what is yours, such as a file, a key or a value,
and for parts that several messages share. Search for words of your message that are not yours. Not listed are wrong
keys, types, bounds and combinations of values, which are told with the key's own sentence (`dvpo schema` has it), and
messages that are put together elsewhere than where they are raised.

"""


def template(node: ast.expr) -> str:
    """A message with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


def messages() -> Iterator[tuple[str, str]]:
    """Module and message of each place that raises one; those that pass on what others found are not among them."""
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                call = node.exc if isinstance(node, ast.Raise) else None
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Name)
                    and call.func.id in RAISED
                    and call.args
                ):
                    text = re.sub(r"…(\s*…)+", "…", template(call.args[0]))
                    if re.search(r"[a-z]{3}", text):
                        yield module, " ".join(text.split())


def page_of(module: str) -> str:
    """The page about a module."""
    return PAGES[max((prefix for prefix in PAGES if f"{module}.".startswith(f"{prefix}.")), key=len)]


def catalogue() -> str:
    """The page."""
    by_page: dict[str, set[str]] = defaultdict(set)
    for module, text in messages():
        by_page[page_of(module)].add(text)
    parts = [HEAD]
    for page in sorted(by_page):
        rows = sorted(by_page[page], key=str.casefold)
        parts.append(
            f"## [{page}.md]({page}.md)\n\n" + "".join(f"- `{row.replace('`', chr(39))}`\n" for row in rows) + "\n"
        )
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(catalogue(), encoding="utf-8")

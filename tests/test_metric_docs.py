"""Every metric that the code writes is explained in docs/metrics.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AREAS = (
    "rollout", "sync", "vllm", "reward", "correction", "eval", "time", "policy", "advantage", "critic", "learner",
    "guard", "environment",
)  # fmt: skip
KEY = re.compile(rf"({'|'.join(AREAS)}|\*)(/[a-z0-9_*]*[a-z0-9*])+")


def documented() -> set[str]:
    """Keys of the tables; a capital word stands for any name, `a/b_mean`, `_max` for a/b_mean and a/b_max."""
    keys = set()
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            names = re.findall(r"`([^`]+)`", line.split("|")[1])
            stem = names[0].rpartition("_")[0]
            keys |= {stem + name if name.startswith("_") else name for name in names}
    return {re.sub(r"[A-Z]+", "*", key) for key in keys}


def written() -> dict[str, str]:
    """Metric keys in string literals, with `*` for what an f-string fills in, and where they are."""
    found = {}
    for package in ("rollout", "learner", "actors", "cluster"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [part.value if isinstance(part, ast.Constant) else "*" for part in parts]
                words = [text for text in texts if isinstance(text, str)]
                text = "".join(words) if len(words) == len(texts) else ""
                if KEY.fullmatch(text):
                    found[text] = str(path.relative_to(ROOT))
    return found


def test_every_metric_is_documented() -> None:
    known = documented()
    assert len(known) > 60
    missing = {
        f"{key} ({where})"
        for key, where in written().items()
        if not any(re.fullmatch(re.escape(key).replace(r"\*", ".+"), name) for name in known)
        and not any(re.fullmatch(re.escape(name).replace(r"\*", ".+"), key) for name in known)
    }
    assert missing == set()


def test_every_documented_metric_is_written() -> None:
    """A key whose literal is nowhere has been renamed or removed."""
    keys = written()
    stale = {
        name
        for name in documented()
        if not any(re.fullmatch(re.escape(key).replace(r"\*", ".+"), name) for key in keys)
    }
    assert stale == set()

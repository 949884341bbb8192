"""Writes the two pages of reference: configuration.md from the schema, python.md from docstrings.

python docs/list_reference.py          # writes both; a test compares them with the source
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MADE = "made from the source by `python docs/list_reference.py`, and a test compares them"
PARTS = {
    "Task": "data.task",
    "Reward": "reward.functions, reward.gold",
    "RewardNoise": "reward.noise",
    "RewardCorrection": "algorithm.reward_correction",
    "PolicyObjective": "algorithm.policy_objective",
    "ReadOut": "algorithm.readout",
    "CriticTarget": "algorithm.target",
    "CriticTerm": "algorithm.terms",
    "CriticRegulariser": "algorithm.regularisers",
    "FurtherSink": "logging.sinks",
}
"""Definitions of the schema that list built-in parts, and where such a part is given."""
PUBLIC: dict[str, dict[str, list[str]]] = {
    "Runs from Python": {
        "cluster/api/commands.py": ["train", "evaluate", "compare", "Evaluation"],
        "cluster/api/run_data.py": ["load_run", "Run"],
        "rollout/component/errors.py": ["UserError"],
    },
    "Records": {
        "rollout/trajectory.py": ["Prompt", "Outcome", "Trajectory"],
        "rollout/tasks/base.py": ["Example"],
    },
    "Parts of your own": {
        "rollout/tasks/base.py": ["Task"],
        "rollout/environment.py": ["Environment", "Observation"],
        "rollout/rewards/base.py": ["Reward", "Abstain"],
        "rollout/noise/base.py": ["RewardNoise"],
        "learner/algorithms/base.py": ["Algorithm"],
        "learner/algorithms/corrections/base.py": ["RewardCorrection"],
        "learner/algorithms/objectives/base.py": ["PolicyObjective"],
        "learner/algorithms/critic/readouts.py": ["ReadOut"],
        "learner/algorithms/critic/targets/base.py": ["CriticTarget"],
        "learner/algorithms/critic/terms/base.py": ["CriticTerm"],
        "learner/algorithms/critic/regularisers/base.py": ["CriticRegulariser"],
        "actors/guards/base.py": ["Guard"],
        "actors/recording/sinks.py": ["Sink"],
    },
}
"""What a user's code may call or inherit from, by file."""


def cell(text: str) -> str:
    """Text in a table or a list: on one line, with marks of reStructuredText as Markdown has them."""
    plain = re.sub(r":\w+:`~?\.?([^`]*)`", r"`\1`", text).replace("``", "`")
    return " ".join(plain.split()).replace("|", "\\|").replace("[^", "\\[^")


def kind(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A value's type with its bounds, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"a {PARTS[name].split(',')[0]}" if name in PARTS else "options, below" if name in definitions else name
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(kind(option, definitions) for option in value["anyOf"]))
    if "enum" in value or "const" in value:
        return " or ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        items = value.get("items", {})
        return f"list of {kind(items, definitions)}" if items else "list"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    shown = [f"{sign} {value[name]}" for name, sign in bounds.items() if name in value]
    return " ".join([str(value.get("type", "any")).replace("object", "mapping"), *shown])


def row(name: str, value: Mapping[str, Any], section: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """One key: what it takes, its default, and its sentence."""
    required = name in section.get("required", [])
    default = "required" if required else f"`{_short(value['default'])}`" if "default" in value else ""
    takes = kind(value, definitions).replace("|", "\\|")
    return f"| `{name}` | {takes} | {default} | {cell(value.get('description', ''))} |\n"


def _short(value: Any) -> str:
    """A default; a section's own defaults are in its table."""
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    text = json.dumps(value) if value is None or isinstance(value, bool | list) else str(value)
    return text.replace("|", "\\|")  # or it would end the cell


def table(section: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The keys of a section, without the one that names the part itself."""
    keys = {name: value for name, value in section["properties"].items() if "const" not in value}
    if not keys:
        return "No options.\n\n"
    rows = "".join(row(name, value, section, definitions) for name, value in keys.items())
    return f"| key | takes | default | |\n|---|---|---|---|\n{rows}\n"


def sections(path: str, section: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every section below one, by its dotted path, with its table."""
    for name, value in section["properties"].items():
        below = f"{path}.{name}" if path else name
        for option in value.get("anyOf", [value]):
            found = definitions.get(option.get("$ref", "").rpartition("/")[2])
            if found is not None and "properties" in found:
                yield below, table(found, definitions)
                yield from sections(below, found, definitions)


def algorithms(definition: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Options of all presets in one table, since they share most; the presets that have each if not all do."""
    variants = [option for option in definition["anyOf"] if "preset" in option.get("properties", {})]
    owners: dict[str, list[str]] = defaultdict(list)
    first: dict[str, Mapping[str, Any]] = {}
    for variant in variants:
        for name, value in variant["properties"].items():
            owners[name].append(variant["properties"]["preset"]["const"])
            first.setdefault(name, value)
    rows = []
    for name, value in first.items():
        if name == "preset":
            continue
        few = owners[name]
        where = "" if len(few) == len(variants) else f" Of {', '.join(few[:4])}{', ...' if len(few) > 4 else ''}."
        defaults = {str(v["properties"][name].get("default")) for v in variants if name in v["properties"]}
        shown = {**value, "description": value.get("description", "") + where}
        if len(defaults) > 1:
            shown["default"] = "by preset"
        rows.append(row(name, shown, {}, definitions))
    return "| key | takes | default | |\n|---|---|---|---|\n" + "".join(rows) + "\n"


def configuration() -> str:
    """The page of all keys."""
    from cluster.config.schema import build_schema

    schema = build_schema()
    definitions = schema["$defs"]
    parts = [
        "# Configuration\n\nEvery key of a run's YAML, from the schema that `dvpo schema` gives to editors. This page "
        f"and [python.md](python.md) are {MADE}.\n\n## At the top\n\n",
        table(schema, definitions),
    ]
    for path, text in sections("", schema, definitions):
        parts.append(f"## {path}\n\n{text}")
    presets = "[algorithms.md](algorithms.md) says what each preset is, and which options it sets."
    parts.append(f"## algorithm\n\n{presets}\n\n" + algorithms(definitions["Algorithm"], definitions))
    for name, place in PARTS.items():
        for variant in definitions[name]["anyOf"]:
            chosen = variant.get("properties", {}).get("type", {})
            if "const" in chosen:
                heading = f"## {place.split(',')[0]}: {chosen['const']}"
                parts.append(f"{heading}\n\n{cell(variant.get('description', ''))}\n\n{table(variant, definitions)}")
    return "".join(parts).rstrip() + "\n"


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists."""
    text = re.sub(r":\w+:`~?\.?([^`]*)`", r"`\1`", docstring or "").replace("``", "`")
    found = []
    for block in re.split(r"\n\n+", text):
        head, _, body = block.partition("\n")
        if head in ("Args:", "Returns:", "Raises:", "Attributes:", "Yields:"):
            entries = re.split(r"\n(?=\S)", textwrap.dedent(body))
            found.append(f"*{head[:-1]}*\n\n" + "\n".join(f"- {' '.join(entry.split())}" for entry in entries))
        elif block.startswith("    "):
            found.append("```text\n" + textwrap.dedent(block) + "\n```")
        else:
            found.append(" ".join(block.split()).removesuffix(":") + (":" if block.rstrip().endswith("::") else ""))
    return "\n\n".join(found)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """How it is called, without ``self``."""
    arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
    start = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{start}{node.name}({arguments}){returns}"


def described(module: str, node: ast.stmt) -> Iterator[str]:
    """A class with its public methods, or a function."""
    if isinstance(node, ast.ClassDef):
        yield f"### {node.name}\n\n`{module}.{node.name}`\n\n{prose(ast.get_docstring(node))}\n\n"
        for member in node.body:
            if not isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) or not ast.get_docstring(member):
                continue
            if not member.name.startswith("_") or member.name == "__call__":
                yield f"**`{signature(member)}`**\n\n{prose(ast.get_docstring(member))}\n\n"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield f"### {node.name}\n\n`{module}.{signature(node)}`\n\n{prose(ast.get_docstring(node))}\n\n"


def python() -> str:
    """The page of classes and functions."""
    parts = [
        "# Python\n\nWhat your code may call or inherit from. This page and [configuration.md](configuration.md) are "
        f"{MADE}. [api.md](api.md) has examples of the first part, [architecture.md](architecture.md) says where each "
        "is used.\n\n"
    ]
    for title, files in PUBLIC.items():
        parts.append(f"## {title}\n\n")
        for file, names in files.items():
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            nodes = {node.name: node for node in tree.body if hasattr(node, "name")}
            module = file.removesuffix(".py").replace("/", ".")
            module = "cluster.api" if module.startswith("cluster.api.") else module
            for name in names:
                parts += described(module, nodes[name])
    return "".join(parts).rstrip() + "\n"


PAGES = {"configuration.md": configuration, "python.md": python}

if __name__ == "__main__":
    for name, made in PAGES.items():
        (ROOT / "docs" / name).write_text(made(), encoding="utf-8")

"""How a single value of a configuration is read, and written so that it is read back as it was.

PyYAML follows YAML 1.1, in which ``1e-6`` is a string, ``no`` is false, ``010`` is 8 and ``1:30`` is 90; none of this
is acceptable in a run's configuration, so it is put right, or refused where versions of YAML differ.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from rollout.component.mistakes import NotYaml

_EXPONENT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_ZERO_FIRST = re.compile(r"[-+]?0[0-9_]+")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class Loader(yaml.SafeLoader):
    """SafeLoader with the floats and booleans of YAML 1.2 (``1e-6``; only ``true`` and ``false``) and no dates."""


_REPLACED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts in quotes what :class:`Loader` would not read as a text."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
for _trap in (_ZERO_FIRST, _BASE_60):
    _Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^(?:{_trap.pattern})$"), list("-+0123456789"))


def dump_yaml(data: Any) -> str:
    """``data`` as YAML that :class:`Loader` reads back to an equal value."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def refuse_trap(scalar: yaml.ScalarNode | yaml.ScalarEvent, place: str) -> None:
    """Refuse what versions of YAML read as different numbers, unless quotes make it a text.

    Args:
        place: file, line and key, or the override; the message begins with it.

    Raises:
        UserError: it is such a number.
    """
    text: str = scalar.value
    if scalar.style is not None:
        return
    if _ZERO_FIRST.fullmatch(text):
        right = re.sub("^([-+]?)0+(?=[0-9])", r"\1", text.replace("_", ""))
        why = f"begins with 0, and some readers of YAML take that for a number to base 8; write {right}"
    elif _BASE_60.fullmatch(text):
        why = "is a number to base 60 to some readers of YAML; write the number itself"
    else:
        return
    raise NotYaml(f"{place}: {text} {why}, or {text!r} in quotes where a text is meant")


def refuse_traps(text: str, place: str) -> None:
    """As :func:`refuse_trap`, for every value in a text.

    Raises:
        UserError: one of them is such a number.
        yaml.YAMLError: the text is not YAML.
    """
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.ScalarEvent):
            refuse_trap(event, place)

"""``dvpo schema``: the JSON Schema of a run's configuration, with the options of every built-in component.

Pydantic's own schema stops at components, because a configuration names them by ``type``. Here each place that takes
a component lists the built-in ones with their options, so that an editor completes and checks them; a class of the
user's own (``package.module:Class``) may have any options.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cluster.config.run_config import RunConfig
from learner.algorithms.catalogue import ALGORITHMS
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.objectives import OBJECTIVES
from learner.algorithms.presets import PRESETS
from rollout.component import import_object
from rollout.noise import NOISES
from rollout.rewards import REWARDS
from rollout.tasks import TASKS

CUSTOM_TYPE = r"^[\w.]+:\w+$"
"""Pattern of ``package.module:Class``."""


def build_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of :class:`cluster.config.run_config.RunConfig`."""
    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "dvpo run"
    definitions = schema["$defs"]
    definitions["Task"] = _component("task", TASKS, definitions)
    definitions["Environment"] = _custom("environment")
    # An option that is a component itself: for pydantic it may be anything that has a type.
    for variant in definitions["Task"]["anyOf"]:
        if "environment" in variant["properties"]:
            variant["properties"]["environment"]["anyOf"][0] = {"$ref": "#/$defs/Environment"}
    definitions["Reward"] = _component("reward", REWARDS, definitions)
    definitions["RewardNoise"] = _component("noise model", NOISES, definitions)
    definitions["RewardCorrection"] = _component("reward correction", CORRECTIONS, definitions)
    definitions["PolicyObjective"] = _component("policy objective", OBJECTIVES, definitions)
    definitions["Algorithm"] = _algorithm(definitions)
    definitions["DataConfig"]["properties"]["task"] = _reference("Task", definitions["DataConfig"], "task")
    reward = definitions["RewardConfig"]["properties"]
    reward["functions"]["items"] = reward["gold"]["items"] = {"$ref": "#/$defs/Reward"}
    reward["noise"]["items"] = {"$ref": "#/$defs/RewardNoise"}
    schema["properties"]["algorithm"] = _reference("Algorithm", schema, "algorithm")
    # Every reference to these has been replaced by one to a list of what is built in.
    for name in [name for name in definitions if name.rpartition(".")[2] in ("ComponentSpec", "AlgorithmSpec")]:
        del definitions[name]
    return schema


def _component(noun: str, builtins: Mapping[str, str], definitions: dict[str, Any]) -> dict[str, Any]:
    """A built-in with its options, or a class of the user's own."""
    return {"anyOf": [*_types(builtins, definitions), _custom(noun)]}


def _types(builtins: Mapping[str, str], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """One variant a built-in, told apart by ``type``."""
    variants = []
    for name, path in builtins.items():
        found = import_object(path, name)
        options = _hoisted(found.Config, f"{name}.", definitions)
        variants.append(_variant("type", name, options, _summary(found)))
    return variants


def _algorithm(definitions: dict[str, Any]) -> dict[str, Any]:
    """A preset's name, a preset with options that override its own, a type with options, or a class of the user's."""
    presets = []
    for name, preset in PRESETS.items():
        options = _algorithm_options(preset.type, ALGORITHMS[preset.type], definitions)
        for key, value in preset.options.items():
            if key in options["properties"]:
                options["properties"][key] = {**options["properties"][key], "default": value}
        # What the preset gives need not be written.
        options["required"] = [key for key in options.get("required", []) if key not in preset.options]
        presets.append(_variant("preset", name, options, preset.summary))
    names = {"enum": list(PRESETS), "type": "string", "description": "A preset with the options it comes with."}
    custom_name = {"type": "string", "pattern": CUSTOM_TYPE, "description": "An algorithm of your own."}
    types = [
        _variant("type", name, _algorithm_options(name, path, definitions), _summary(import_object(path, name)))
        for name, path in ALGORITHMS.items()
    ]
    return {"anyOf": [names, custom_name, *presets, *types, _custom("algorithm")]}


def _algorithm_options(name: str, path: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Options of an algorithm; those that are components themselves may also be given by name alone."""
    options = _hoisted(import_object(path, name).Config, f"{name}.", definitions)
    kept = {k: v for k, v in options["properties"]["reward_correction"].items() if k in ("description", "default")}
    one = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/RewardCorrection"}]}
    options["properties"]["reward_correction"] = {"anyOf": [*one["anyOf"], {"type": "array", "items": one}], **kept}
    if "policy_objective" in options["properties"]:
        kept = {k: v for k, v in options["properties"]["policy_objective"].items() if k in ("description", "default")}
        variants = [{"type": "null"}, {"type": "string"}, {"$ref": "#/$defs/PolicyObjective"}]
        options["properties"]["policy_objective"] = {"anyOf": variants, **kept}
    return options


def _variant(key: str, name: str, options: dict[str, Any], description: str) -> dict[str, Any]:
    """An object whose ``key`` is ``name`` and whose other properties are ``options``."""
    return {
        **options,
        "title": name,
        "description": description,
        "properties": {key: {"const": name, "description": description}, **options.get("properties", {})},
        "required": [key, *options.get("required", [])],
        "additionalProperties": False,
    }


def _custom(noun: str) -> dict[str, Any]:
    """A class of the user's own, with any options."""
    description = f"A {noun} of your own, 'package.module:Class', and its options."
    return {
        "type": "object",
        "title": "module:Class",
        "description": description,
        "properties": {"type": {"type": "string", "pattern": CUSTOM_TYPE, "description": description}},
        "required": ["type"],
        "additionalProperties": True,
    }


def _hoisted(model: type[BaseModel], prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of ``model``; its own definitions move to ``definitions`` under names that start with ``prefix``."""
    schema = copy.deepcopy(model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}"))
    for name, definition in schema.pop("$defs", {}).items():
        definitions[prefix + name] = definition
    return schema


def _reference(name: str, owner: dict[str, Any], key: str) -> dict[str, Any]:
    """A reference that keeps the description of the property it replaces."""
    kept = {k: v for k, v in owner["properties"][key].items() if k == "description"}
    return {"$ref": f"#/$defs/{name}", **kept}


def _summary(found: type[Any]) -> str:
    """First paragraph of the class's docstring."""
    return " ".join((found.__doc__ or found.__name__).strip().split("\n\n")[0].split())

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

from actors.recording.trackers import TRACKERS
from cluster.config.run_config import RunConfig
from learner.algorithms.catalogue import ALGORITHMS
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.critic.regularisers import REGULARISERS
from learner.algorithms.critic.targets import TARGETS
from learner.algorithms.critic.terms import TERMS
from learner.algorithms.objectives import OBJECTIVES
from learner.algorithms.presets import PRESETS
from rollout.component import import_object
from rollout.noise import NOISES
from rollout.rewards import REWARDS
from rollout.tasks import TASKS

CUSTOM_TYPE = r"^[\w.]+:\w+$"
"""Pattern of ``package.module:Class``."""
PIECES = {
    "reward_correction": "RewardCorrection",
    "policy_objective": "PolicyObjective",
    "readout": "ReadOut",
    "target": "CriticTarget",
    "terms": "CriticTerm",
    "regularisers": "CriticRegulariser",
}
"""Options of an algorithm that take components, and the definition of those."""


def build_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of :class:`cluster.config.run_config.RunConfig`."""
    from learner.algorithms.critic.readouts import READOUTS  # which loads torch

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
    of_source = definitions["sources.Source"]["properties"]["noise"]  # each of several sources has noise of its own
    of_source["items"] = {"$ref": "#/$defs/RewardNoise"}
    definitions["RewardCorrection"] = _component("reward correction", CORRECTIONS, definitions)
    definitions["PolicyObjective"] = _component("policy objective", OBJECTIVES, definitions)
    definitions["ReadOut"] = _component("read-out", READOUTS, definitions)
    definitions["CriticTarget"] = _component("target", TARGETS, definitions)
    definitions["CriticTerm"] = _component("term", TERMS, definitions)
    definitions["CriticRegulariser"] = _component("regulariser", REGULARISERS, definitions)
    definitions["Algorithm"] = _algorithm(definitions)
    definitions["DataConfig"]["properties"]["task"] = _reference("Task", definitions["DataConfig"], "task")
    reward = definitions["RewardConfig"]["properties"]
    reward["functions"]["items"] = reward["gold"]["items"] = {"$ref": "#/$defs/Reward"}
    reward["noise"]["items"] = {"$ref": "#/$defs/RewardNoise"}
    definitions["Guard"] = _custom("guard")
    definitions["FurtherSink"] = _component("sink", TRACKERS, definitions)
    definitions["GuardsConfig"]["properties"]["further"]["items"] = {"$ref": "#/$defs/Guard"}
    definitions["LoggingConfig"]["properties"]["sinks"]["items"] = {"$ref": "#/$defs/FurtherSink"}
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
    """Options of an algorithm, its short keys among them; pieces may also be given by name alone."""
    found = import_object(path, name)
    options = _hoisted(found.Config, f"{name}.", definitions)
    properties = options["properties"]
    for option, piece in PIECES.items():
        if option in properties:
            properties[option] = _piece(properties[option], piece)
    for key, short in getattr(found, "SHORT_KEYS", {}).items():
        description, values = short.schema()
        properties[key] = {**values, "description": description}
    return options


def _piece(option: dict[str, Any], piece: str) -> dict[str, Any]:
    """A place that takes a component, or a list of them, by name or with options."""
    kept = {k: v for k, v in option.items() if k in ("description", "default")}
    one = [{"type": "string"}, {"$ref": f"#/$defs/{piece}"}]
    if option.get("type") == "array":
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}], **kept}
    return {"anyOf": [*([{"type": "null"}] if "anyOf" in option else []), *one], **kept}


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

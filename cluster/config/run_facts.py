"""What a run has to know of its configuration that only its components and its model can tell."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config.components import resolve
from cluster.config.object_store import chosen_object_store_mib
from cluster.config.run_config import RunConfig, dump_config


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Plain values: found in one process, used in another that has loaded neither torch nor the user's classes.

    Attributes:
        text: the configuration as it is written down, with every default spelled out.
        object_store_mib: size of the object store of a private Ray.
    """

    text: str
    object_store_mib: int


def run_facts(config: RunConfig) -> RunFacts:
    """The facts of a run that trains. Loads torch.

    Raises:
        UserError: a component is wrong, or there is no such model.
    """
    return RunFacts(text=dump_config(resolve(config)), object_store_mib=chosen_object_store_mib(config, trains=True))

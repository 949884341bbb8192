"""How large Ray's object store has to be: what of a run goes through it, and how many copies of that at once."""

from __future__ import annotations

import math

from cluster.config.model_folder import num_policy_weights
from cluster.config.run_config import RunConfig

FLOOR_MIB = 256
"""Smallest size that is chosen: room for what Ray and answers of evaluations take besides."""
SLACK = 1.1
"""The store is cut into blocks, so that not all of it can be used."""
BYTES_PER_WEIGHT = 4
"""Weights leave the learner in float32, whatever it or an engine computes in."""
BYTES_PER_TOKEN = 24
"""Of a pickled trajectory: the id, whether it was sampled, its log-probability, and its text."""


def uses_nccl(config: RunConfig) -> bool:
    """Whether weights go from GPU to GPU; see ``rollout.weight_sync``."""
    both_on_gpu = config.cluster.gpus_per_learner_worker > 0 and config.cluster.gpus_per_rollout_worker > 0
    return config.rollout.weight_sync == "nccl" or (config.rollout.weight_sync == "auto" and both_on_gpu)


def object_store_need_mib(config: RunConfig, num_weights: int) -> int:
    """What training puts into the object store at most, in MiB.

    The weights that engines serve stay until the next ones have left the learner, since an engine that replaces another
    would load them: two copies; none where they go from GPU to GPU. Besides these the trajectories that were asked for
    and not yet trained on, all at their longest.

    Args:
        num_weights: of the policy.
    """
    training = config.training
    copies = 0 if uses_nccl(config) else 2
    trajectories = training.trajectories_per_step * (1 + training.max_staleness) * config.rollout.longest_tokens
    need = copies * num_weights * BYTES_PER_WEIGHT + trajectories * BYTES_PER_TOKEN
    return math.ceil(SLACK * need / 2**20)


def object_store_mib(config: RunConfig, num_weights: int) -> int:
    """Size of a private Ray's object store: the one given, or what a run needs.

    Args:
        num_weights: of the policy, 0 where none are sent.
    """
    given = config.cluster.object_store_mib
    return given if given is not None else max(FLOOR_MIB, object_store_need_mib(config, num_weights))


def chosen_object_store_mib(config: RunConfig, trains: bool) -> int:
    """:func:`object_store_mib` of the configured model; one that only evaluates sends no weights."""
    is_given = config.cluster.object_store_mib is not None
    return object_store_mib(config, num_policy_weights(config.model) if trains and not is_given else 0)

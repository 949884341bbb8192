"""Reward models inside the process of a command that starts no Ray."""

from __future__ import annotations

from actors.workers.reward_model_worker import RewardModelWorker
from cluster.config.run_config import RunConfig
from cluster.reward_model.check import check_reward_model
from cluster.run.reward_models import served_models, serving_options
from learner.reward_model.model import Device


def local_scorers(config: RunConfig) -> dict[str, RewardModelWorker]:
    """Scorers by place that run in this process, for commands that start no Ray; on its GPU if one is asked for.

    Raises:
        UserError: a model cannot be served.
    """
    found = {}
    for model in served_models(config):
        check_reward_model(model)
        device: Device = "cuda" if model.options.num_gpus > 0.0 else "cpu"
        # An actor that hangs ends its process to be started again; this process is the command itself.
        found[model.place] = RewardModelWorker(serving_options(config, model.options, device), exit_when_hung=False)
    return found

"""``dvpo reward-model train``: from preference pairs to a model folder with a report of how far it can be trusted.

One process, plain torch: for small models, or what one GPU holds. The service serves the output of any other trainer
equally, as long as it is a Hugging Face sequence-classification model with one label.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.config.model_folder import load_model_config, max_positions
from cluster.reward_model.config import RewardModelConfig
from cluster.reward_model.data import PairData, load_pairs
from cluster.reward_model.report import REPORT, Quality, judge, write_report
from learner.reward_model import training
from learner.reward_model.losses import LOSSES, PairLoss
from learner.reward_model.model import Device, NotARewardModel, RewardModel
from rollout.component import build
from rollout.component.mistakes import ModelFiles, ModelMismatch, NotWritable, OutOfRange, WrongValue
from rollout.data.prompts import load_tokenizer

REJECTS = "rejects.jsonl"


@dataclass(frozen=True, slots=True)
class TrainedRewardModel:
    """What came out.

    Attributes:
        path: the model folder.
        quality: on held-out pairs.
        report: what has been written beside the model.
    """

    path: Path
    quality: Quality
    report: dict[str, Any]

    def lines(self) -> list[str]:
        """For the terminal."""
        report, quality = self.report, self.quality
        rejected = sum(report["num_rejected_rows"].values())
        lines = [
            f"{self.path}: {report['num_train_pairs']} pairs, {report['num_steps']} steps, {report['seconds']:.0f} s; "
            f"accuracy on the pairs trained on {report['train_accuracy']:.3f}",
            *quality.lines(),
        ]
        return lines + ([f"{rejected} rows were rejected, see {self.path / REJECTS}"] if rejected else [])


def train_reward_model(
    config: RewardModelConfig, overwrite: bool = False, on_step: Callable[[int, int, float], None] | None = None
) -> TrainedRewardModel:
    """Read the pairs, train, measure on the held-out pairs, save.

    Args:
        overwrite: files in the output folder may be replaced.
        on_step: called with step (from 1), number of steps and loss.

    Raises:
        UserError: a model, file, row or option is wrong, or the loss is no number.
    """
    loss: PairLoss = build(config.loss, LOSSES, PairLoss, "loss")
    output = _output_folder(config, overwrite)
    model = _starting_model(config)
    data = load_pairs(config, model)
    started = time.monotonic()
    pairs = [one.pair for one in data.train]
    total = training.num_steps(len(pairs), config.optimisation, loss.noise_rate)
    report_step = None if on_step is None else lambda step, value: on_step(step, total, value)
    try:
        losses = training.train_reward_model(model, pairs, loss, config.optimisation, config.seed, report_step)
    except FloatingPointError as error:
        raise OutOfRange(f"optimisation.lr: training fails at {error}; lower the learning rate") from error
    quality = judge(training.score_pairs(model, [one.pair for one in data.held_out]), [p.group for p in data.held_out])
    on_train = training.score_pairs(model, pairs)
    report = {
        "config": config.model_dump(mode="json"),
        "num_train_pairs": len(pairs),
        "num_train_prompts": len({one.group for one in data.train}),
        "num_held_out_pairs": len(data.held_out),
        "num_held_out_prompts": len({one.group for one in data.held_out}),
        "num_rejected_rows": dict(data.findings.num_rejected),
        "num_steps": len(losses),
        "final_loss": sum(losses[-10:]) / len(losses[-10:]),
        "train_accuracy": sum(chosen > rejected for chosen, rejected in on_train) / len(on_train),
        **quality.to_json(),
        "seconds": round(time.monotonic() - started, 2),
    }
    _save(output, model, data, report)
    return TrainedRewardModel(output, quality, report)


def _output_folder(config: RewardModelConfig, overwrite: bool) -> Path:
    """The folder to write, looked at before anything is computed."""
    folder = Path(config.output)
    if folder.resolve() == Path(config.model).resolve():
        raise NotWritable(f"output: {config.output!r} is the model that it starts from; name another folder")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotWritable(f"output: {str(existing)!r} is a file, so no folder {str(folder)!r} can be made")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise NotWritable(f"output: folder {str(existing)!r} is not writable")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise NotWritable(
                f"output: {str(folder)!r} is not empty; name another folder, or replace it by --overwrite"
            )
        if not (folder / REPORT).is_file():
            raise NotWritable(f"--overwrite: {str(folder)!r} has no {REPORT}, so it is left alone; name another folder")
    return folder


def _starting_model(config: RewardModelConfig) -> RewardModel:
    """The model to train.

    Raises:
        UserError: there is no such model, it cannot classify sequences, or it cannot read ``max_tokens``.
    """
    found = load_model_config(config.model, "model")
    # Not at the top of the file: the line above decides whether transformers may ask the hub, which it reads only once.
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    load_tokenizer(config.model, key="model")
    positions = max_positions(found)
    if positions is not None and positions < config.max_tokens:
        raise ModelMismatch(
            f"max_tokens: {config.max_tokens} is more than the {positions} positions of {config.model!r}"
        )
    if config.device == "cuda" and not torch.cuda.is_available():
        raise WrongValue("device: there is no GPU that torch can use; take 'cpu' or 'auto'")
    is_on_gpu = config.device != "cpu" and torch.cuda.is_available()
    device: Device = "cuda" if is_on_gpu else "cpu"
    if not is_on_gpu and found.get_text_config().hidden_size <= 256:
        torch.set_num_threads(1)  # for a model this small a second thread costs more than it brings
    try:
        return RewardModel.start_from(config.model, config.max_tokens, config.seed, device)
    except (NotARewardModel, ValueError) as error:  # transformers: no sequence classifier of this type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelFiles(f"model: no reward model can be made from {config.model!r}: {reason}") from error


def _save(output: Path, model: RewardModel, data: PairData, report: dict[str, Any]) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        model.save(output)
    except OSError as error:
        raise NotWritable(f"output: {output} cannot be written: {error.strerror or error}") from error
    if data.findings.rejects:
        data.findings.write_rejects(output / REJECTS)
    else:
        (output / REJECTS).unlink(missing_ok=True)
    write_report(output, report)

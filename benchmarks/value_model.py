"""Does the value model of ``evidence`` tell right responses from wrong ones? Measured on the checkpoints of a run.

The run must have recorded the true score of every sample: ``reward.gold_share: 1``, injected noise or ``reward.gold``;
training sees none of them but those of ``reward.gold_labels``. A checkpoint holds the newest responses that the value
model trains on, in parts: each is judged by a network that has never seen its prompt. So what it says of them is held
out, and comes from what the run had seen until then.

    python -m benchmarks.value_model RUN [RUN ...]

Prints, for each checkpoint, the area under the ROC curve (AUC): the probability that a right response is judged better
than a wrong one. ``within``: of two responses to the same prompt. ``untrained``: by the mean log-probability under the
starting model alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from actors.ledger.file import open_for_reading
from actors.ledger.report import LEDGER_NAME
from benchmarks.faults.evidence_store import remembered
from cluster.config.run_config import load_config
from learner.algorithms.corrections.evidence.correction import Evidence
from learner.algorithms.corrections.evidence.outcome_model import MEAN_REF_LOGPROB
from learner.batch import sample_seed
from learner.storage.manifest import CheckpointError, checkpoint_step, newest_first, verify

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Responses of a window with what the value model says and what is true.

    Attributes:
        prompts: [n] which prompt each is to.
        logits: [n] of the value model.
        mean_logprobs: [n] of the starting model.
        truth: [n] 1 or 0.
    """

    prompts: NDArray[np.int64]
    logits: FloatArray
    mean_logprobs: FloatArray
    truth: FloatArray


def auc(scores: FloatArray, truth: FloatArray) -> float:
    """Probability that a right one of ``scores`` [n] is above a wrong one, ties counted half; NaN without both."""
    num_right = int(truth.sum())
    num_wrong = len(truth) - num_right
    if not num_right or not num_wrong:
        return float("nan")
    of_right = rankdata(scores)[truth == 1.0].sum()
    return float((of_right - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def auc_within(judged: Judged) -> float:
    """The same over all pairs of responses to one prompt."""
    better = pairs = 0.0
    for prompt in np.unique(judged.prompts):
        of_prompt = judged.prompts == prompt
        truth = judged.truth[of_prompt]
        num = float(truth.sum() * (len(truth) - truth.sum()))
        if num:
            better += num * auc(judged.logits[of_prompt], truth)
            pairs += num
    return better / pairs if pairs else float("nan")


def true_scores(run: Path) -> dict[int, float]:
    """Those that the ledger has, by the seed that the learner has of each sample."""
    seed = load_config(run / "config.yaml").seed
    with open_for_reading(run / LEDGER_NAME) as ledger:
        rows = ledger.execute("SELECT trajectory_id, gold FROM samples WHERE gold IS NOT NULL").fetchall()
    return {sample_seed(seed, name): float(gold) for name, gold in rows}


def judged_at(checkpoint: Path, truth: Mapping[int, float]) -> Judged:
    """The window of a checkpoint, with the true score of each sample by its seed."""
    evidence = Evidence(Evidence.Config())
    evidence.load_state_dict(remembered(checkpoint))
    window = evidence.window
    seeds, prompts = window.seeds.tolist(), window.keys[:, 0]
    assert all(seed in truth for seed in seeds), "a true score is missing: the run needs reward.gold_share: 1"
    of_views = evidence.logits(window.inputs, prompts).double().numpy()
    prior = of_views.mean(axis=1) if evidence.channel is None else evidence.channel.prior_logits(of_views)
    return Judged(
        prompts=prompts.numpy(),
        logits=prior,
        mean_logprobs=window.inputs[:, MEAN_REF_LOGPROB].double().numpy(),
        truth=np.array([truth[seed] for seed in seeds]),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    print("| run | step | responses | right | AUC | within | untrained |\n|---|---|---|---|---|---|---|")
    for run in parser.parse_args(arguments).runs:
        truth = true_scores(run)
        for checkpoint in reversed(newest_first(run / "checkpoints")):
            try:
                verify(checkpoint)
            except CheckpointError:
                continue
            judged = judged_at(checkpoint, truth)
            print(
                f"| {run.name} | {checkpoint_step(checkpoint)} | {len(judged.truth)} | {judged.truth.mean():.2f} "
                f"| {auc(judged.logits, judged.truth):.3f} | {auc_within(judged):.3f} "
                f"| {auc(judged.mean_logprobs, judged.truth):.3f} |"
            )


if __name__ == "__main__":
    main()

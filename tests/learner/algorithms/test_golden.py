"""Numbers of every preset and of many options, as they were when ``golden.json`` beside this file was recorded.

A change that is meant to move no number, such as a refactoring, leaves this test green. A change that is meant to move
some is followed by a new recording, whose difference says which::

    DVPO_RECORD_GOLDEN=1 python -m pytest tests/learner/algorithms/test_golden.py

With ``-k`` only what is chosen is recorded anew; on another machine than the rest's, with the fingerprint of that one.
Recorded are, on made-up batches: advantages, value targets, losses, their gradients and all metrics; and what three
updates of a tiny model, interrupted by a save and a load, make of its weights. Numbers are compared everywhere, with a
tolerance for rounding. Where the fingerprint of the machine is the recorded one, all bits must be the same too;
``test_bits_are_compared`` is skipped where it is not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.presets import PRESETS
from learner.algorithms.records import Estimates, OldOutputs, PolicyInputs
from learner.batch import TrainBatch
from learner.config import LearnerConfig
from learner.maths.collective import SingleProcess
from learner.maths.kernels import quantile_kernel
from learner.metrics import Metrics, merge_metrics, to_floats
from learner.models.spec import CriticOutput
from learner.update.learner import Learner
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_critic, make_old, policy_inputs

FILE = Path(__file__).with_name("golden.json")
RECORDING = os.environ.get("DVPO_RECORD_GOLDEN") == "1"
REL, ABS = 1e-5, 1e-7
REL_OF_RUNS, ANYTHING = 1e-3, 1e9
"""Relative tolerance of runs on another machine than the recorded one."""
CONFIG = LearnerConfig(
    policy_lr=1e-3, critic_lr=1e-3, adam_eps=1e-3, lr_warmup_frac=0.0, micro_batch_tokens=120
)  # a large eps: a gradient that is only rounding must not become a whole step


# --- what is recorded -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An algorithm with options.

    Attributes:
        name: of a preset or a type.
        options: on top of it.
        runs: whether a tiny model is trained with it as well.
        updates: of such a run; it is saved before the last one.
        warmup: first updates of a run in which only the critic learns.
        dtype: of the made-up batches; float32 is what the learner uses, float64 never takes the compiled form.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    runs: bool = False
    updates: int = 3
    warmup: int = 0
    dtype: torch.dtype = torch.float32


LAW = {"critic": {"num_heads": 3, "num_quantiles": 40}}
PAIR = {"critic": {"num_heads": 2}}
RATES = {"false_positive_rate": 0.1, "false_negative_rate": 0.2}
STEPS = {"num_epochs": 2, "num_minibatches": 2}
DOUBLED = {"type": "noise_corrected", "false_positive_rate": 0.0, "false_negative_rate": 0.5}
"""Twice the reward, so that targets are above the critic's values."""
EAGER = {"type": "winsorise", "warmup_updates": 0, "coverage_tolerance": 1.0, "pad": 0.0, "pad_share": 0.0}


def dvpo(**options: Any) -> Case:
    """DVPO on few quantiles; with ``runs`` trained as well."""
    runs, dtype = bool(options.pop("runs", False)), options.pop("dtype", torch.float32)
    critic = {**LAW["critic"], **options.pop("critic", {})}
    return Case("dvpo", {**options, "critic": critic}, runs, dtype=dtype)


def corrected(name: str, *corrections: Any, **options: Any) -> Case:
    """An algorithm with reward corrections."""
    return Case(name, {**options, "reward_correction": list(corrections)})


UNORDERED = dict.fromkeys(("cvar_coef", "gain_coef", "shape_coef", "curvature_coef"), 0.0)
ALL_TERMS = dict.fromkeys(("gain_coef", "shift_coef", "curvature_coef", "consistency_coef"), 0.2)

VARIANTS: dict[str, Case] = {
    "dvpo mc": dvpo(target_mode="mc"),
    "dvpo quantile_wise": dvpo(target_mode="quantile_wise"),
    "dvpo trimmed": dvpo(adv_aggregate="trimmed"),
    "dvpo spectral": dvpo(adv_aggregate="spectral"),
    "dvpo cvar_blend": dvpo(adv_aggregate="cvar_blend"),
    "dvpo head_bootstrap": dvpo(head_bootstrap_p=0.6, runs=True),
    "dvpo hinge": dvpo(shift_form="hinge"),
    "dvpo batch_hinge": dvpo(shift_form="batch_hinge", shift_coef=1.0, reward_correction=[DOUBLED]),
    "dvpo batch_hinge closed": dvpo(shift_form="batch_hinge", shift_coef=1.0),
    "dvpo shape old": dvpo(shape_ref="old", shape_coef=1.0),
    "dvpo shape target": dvpo(shape_ref="target", shape_coef=1.0),
    "dvpo value_clip": dvpo(value_clip=0.1),
    "dvpo truncated": dvpo(bootstrap_truncated=True, curvature_coef=0.0, runs=True),
    "dvpo truncated mc": dvpo(bootstrap_truncated=True, target_mode="mc"),
    "dvpo truncated quantile_wise": dvpo(bootstrap_truncated=True, target_mode="quantile_wise"),
    "dvpo cumsum": dvpo(critic={"monotonicity": "cumsum"}, runs=True),
    "dvpo unordered": dvpo(critic={"monotonicity": "none"}, **UNORDERED),
    "dvpo target_tail": dvpo(calibration="target_tail"),
    "dvpo one_sided": dvpo(tail_sides="one_sided", cvar_coef=1.0, gain_coef=1.0),
    "dvpo unimodal": dvpo(curvature_form="unimodal", curvature_coef=1.0),
    "dvpo smooth": dvpo(curvature_form="smooth", curvature_coef=1.0),
    "dvpo risk upper": dvpo(risk_direction="upper", risk_eta=2.0),
    "dvpo no risk": dvpo(risk_coef=0.0, shift_coef=0.0, consistency_coef=0.0),
    "dvpo pinball": dvpo(huber_kappa=0.0),
    "dvpo one head": dvpo(critic={"num_heads": 1, "prior_scale": 3.0, "prior_mean": 0.5}, scale_decay=0.5),
    "dvpo discounted": dvpo(gamma=0.9, lam_actor=0.8, lam_critic=0.7, whiten="mad", adv_clip=1.5),
    "dvpo everything": dvpo(
        head_bootstrap_p=0.5,
        shift_form="batch_hinge",
        shape_ref="old",
        value_clip=0.1,
        bootstrap_truncated=True,
        adv_aggregate="trimmed",
        calibration="target_tail",
        reward_correction=[DOUBLED, "precision"],
    ),
    "dvpo float64": dvpo(dtype=torch.float64),
    "dvpo head_bootstrap float64": dvpo(dtype=torch.float64, head_bootstrap_p=0.6),
    "dvpo apa": dvpo(policy_objective="apa"),
    "dvpo bapo": dvpo(policy_objective="bapo", reward_correction=["precision"]),
    "dvpo steps": Case("dvpo", {**LAW, **STEPS, "entropy_coef": 0.01, "curvature_coef": 0.0}, runs=True),
    "dfpo all terms": Case("dfpo", {**LAW, **ALL_TERMS, "bootstrap_truncated": True, **STEPS}, runs=True),
    "dfpo plain": Case("dfpo", {**LAW, "geo_coef": 0.0, "anchor_coef": 0.0, "shape_ref": "old"}),
    "ppo no value_clip": Case("ppo", {"value_clip": None}),
    "ppo heads": Case("ppo", {"critic": {"num_heads": 3}}),
    "ppo truncated": Case("ppo", {"bootstrap_truncated": True}),
    "ppo lambdas": Case("ppo", {"gamma": 0.9, "lam_critic": 0.6, "lam_actor_alpha": 0.2}),
    "ppo plain ratio": Case("ppo", {"dual_clip": None, "importance_cap": None, "whiten": "none", "adv_clip": 0.5}),
    "ppo scale": Case("ppo", {"whiten": "scale", "clip_ratio_high": 0.4, "loss_aggregation": "sequence_mean"}),
    "ppo kl k2": Case("ppo", {"kl_coef": 0.1, "kl_loss": "k2", "entropy_coef": 0.02, "whiten": "mad"}),
    "ppo kl reward": Case("ppo", {"kl_coef": 0.1, "kl_mode": "reward", "entropy_coef": -0.02}),
    "ppo bapo": Case("ppo", {"policy_objective": {"type": "bapo", "positive_share": 0.8}}),
    "ppo steps": Case("ppo", {**STEPS, "kl_coef": 0.1}, runs=True, warmup=1),
    "vrpo no sem": Case("vrpo", {"sem_mode": "none"}),
    "vrpo no ib": Case("vrpo", {"ib": False}),
    "vrpo steps": Case("vrpo-kl", {**STEPS, "sem_share": 0.5, "ib_coef": 0.1}, runs=True),
    "vrpo-dvpo small": Case(
        "vrpo-dvpo", {**LAW, "ib_dim": 16, "bootstrap_truncated": True, "curvature_coef": 0.0}, runs=True
    ),
    "cql both": Case("cql", {**PAIR, "asym_weight": 2.0, "contrast_coef": 0.3, "num_minibatches": 2}, runs=True),
    "cql truncated": Case("cql", {"bootstrap_truncated": True, "value_clip": None}),
    "decoupled-vpo heads": Case("decoupled-vpo", {**PAIR, "pretrain_frac": 0.5, "lam_critic": 0.0}),
    "robust min_heads": Case("robust_bellman", {"value_clip": 0.1, "bootstrap_truncated": True}),
    "robust min_heads law": Case("robust_bellman", LAW),
    "robust contamination": Case("robust_bellman", {"uncertainty": "contamination", "rho": 0.3, "value_clip": 0.1}),
    "robust cvar": Case("robust_bellman", {"uncertainty": "cvar", **LAW, "huber_kappa": 0.0}),
    "robust tv": Case("robust_bellman", {"uncertainty": "tv", "rho": 0.3, **LAW}),
    "robust kl": Case("robust_bellman", {"uncertainty": "kl", **LAW, "bootstrap_truncated": True}),
    "robust kl float64": Case("robust_bellman", {"uncertainty": "kl", **LAW}, dtype=torch.float64),
    "grpo kl reward": Case("grpo", {"kl_coef": 0.1, "kl_mode": "reward", "whiten": "std"}),
    "grpo steps": Case("grpo", {**STEPS, "kl_coef": 0.1, "entropy_coef": 0.01}, runs=True),
    "rloo kl loss": Case("rloo", {"kl_coef": 0.1, "kl_mode": "loss"}),
    "qae high": Case("qae", {"baseline_level": 0.7}),
    "dr-grpo norm": Case("dr-grpo", {"norm_tokens": 20, "kl_coef": 0.1}),
    "reinforce kl": Case("reinforce", {"kl_coef": 0.1, "kl_mode": "reward"}),
    "reinforce-pp discounted": Case("reinforce-pp", {"gamma": 0.9, "kl_coef": 0.1, "whiten": "scale"}),
    "reinforce-pp loss": Case("reinforce-pp", {"kl_mode": "loss", "kl_coef": 0.1}),
    "reinforce-pp-baseline reward": Case("reinforce-pp-baseline", {"kl_mode": "reward", "kl_coef": 0.1}),
    "nc-grpo estimated": Case("nc-grpo", {"rates": {"estimated": True}}),
    "recap weights": Case("recap", {"window": 2, "temperature": 0.5, "entropy_coef": 0.01}, runs=True, updates=6),
    "recap no replay": Case("recap", {"replay_frac": 0.0, "kl_coef": 0.1}),
    "normalise": corrected("ppo", {"type": "normalise", "clip": 1.0, "decay": 0.8}),
    "percentile_clip": corrected("grpo", {"type": "percentile_clip", "low": 0.2, "high": 0.7}),
    "mad_clip": corrected("ppo", {"type": "mad_clip", "width": 0.5}),
    "noise_corrected": corrected("ppo", {"type": "noise_corrected", **RATES, "estimated": True}),
    "forward_corrected": corrected(
        "reinforce", {"type": "forward_corrected", "false_negative_rate": 0.3, "estimated": True}
    ),
    "winsorise": corrected("dvpo", EAGER, **LAW),
    "precision": corrected("dvpo", "precision", **LAW),
    "precision policy": corrected("dvpo", {"type": "precision", "apply_to": "policy", "bound": 2.0}, **LAW),
    "precision critic": corrected("dfpo", {"type": "precision", "apply_to": "critic"}, **LAW),
    "precision robust": corrected("rfqi", "precision", **LAW),
    "corrections": replace(
        corrected("dvpo", "normalise", "mad_clip", EAGER, "precision", **LAW, curvature_coef=0.0), runs=True
    ),
}

CASES = {name: Case(name, runs=True) for name in PRESETS} | VARIANTS

ON_ROUNDING = {"dvpo-literal"}
"""Runs that another processor does not repeat: the curvature of quantiles that start on a line is rounding, which its
weight of (M / iqr)^2 makes a gradient of. Elsewhere only the names of their numbers are compared."""


def tensor_record(value: Tensor) -> dict[str, Any]:
    """Shape, sums, the first numbers that are not 0, and a hash; the weighted sum sees a permutation."""
    flat = value.detach().contiguous().flatten()
    wide = flat.double()
    pattern = torch.arange(len(wide), dtype=torch.float64) * 7919.0 % 101.0 / 101.0
    return {
        "shape": list(value.shape),
        "sum": rounded(float(wide.sum())),
        "sum_abs": rounded(float(wide.abs().sum())),
        "pattern": rounded(float((wide * pattern).sum())),
        "first": [rounded(x) for x in wide[wide != 0.0][:3].tolist()],
        "sha256": hashlib.sha256(flat.numpy().tobytes()).hexdigest(),
    }


def numbers_record(values: Mapping[str, float]) -> dict[str, Any]:
    """Named numbers to nine digits, and a hash of all their bits."""
    exact = ";".join(f"{name}={float(values[name]).hex()}" for name in sorted(values))
    return {
        "values": {name: rounded(float(value)) for name, value in values.items()},
        "sha256": hashlib.sha256(exact.encode()).hexdigest(),
    }


def rounded(value: float) -> float:
    """To nine digits."""
    return float(f"{value:.9g}")


def fingerprint() -> dict[str, Any]:
    """What the last bits depend on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().split("\n\n")[0].splitlines() if cpu.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "kernel": quantile_kernel.is_built(),
        "architecture": platform.machine(),
        "processor": " ".join(facts.get(key, "?") for key in ("vendor_id", "cpu family", "model")),
    }


# --- how it is compared ---------------------------------------------------------------------------------------------


def near(found: float, recorded: float, rel: float, scale: float = 0.0) -> bool:
    """Equal but for rounding; ``scale`` is the size of what was added up."""
    if math.isnan(found) or math.isnan(recorded):
        return math.isnan(found) and math.isnan(recorded)
    return found == recorded or abs(found - recorded) <= ABS + rel * max(abs(found), abs(recorded), scale)


def tensor_differences(found: Mapping[str, Any], recorded: Mapping[str, Any], rel: float) -> list[str]:
    """Fields of a tensor that are not as recorded."""
    if found["shape"] != recorded["shape"] or len(found["first"]) != len(recorded["first"]):
        return [f"shape {found['shape']}, recorded {recorded['shape']}"]
    size = recorded["sum_abs"]
    typical = size / max(1, math.prod(recorded["shape"]))
    pairs = {name: (found[name], recorded[name], size) for name in ("sum", "sum_abs", "pattern")}
    pairs |= {f"number {i}": (found["first"][i], x, typical) for i, x in enumerate(recorded["first"])}
    moved = {name: (one, two) for name, (one, two, scale) in pairs.items() if not near(one, two, rel, scale)}
    return [f"{name} {one!r}, recorded {two!r}" for name, (one, two) in moved.items()]


def number_differences(found: Mapping[str, float], recorded: Mapping[str, float], rel: float) -> list[str]:
    """Names and numbers that are not as recorded."""
    gone = [f"{name} is gone" for name in sorted(recorded.keys() - found.keys())]
    new = [f"{name} is new" for name in sorted(found.keys() - recorded.keys())]
    common = sorted(found.keys() & recorded.keys())
    moved = [f"{k} {found[k]!r}, recorded {recorded[k]!r}" for k in common if not near(found[k], recorded[k], rel)]
    return gone + new + moved


def differences(
    found: Mapping[str, Any], recorded: Mapping[str, Any], exact: bool, rel: float = REL, where: str = ""
) -> list[str]:
    """All that differs between two nested records; with ``exact`` also bits."""
    if "sha256" not in recorded:
        names = sorted(found.keys() | recorded.keys())
        lost = [f"{where}/{name} is in one of both only" for name in names if (name in found) != (name in recorded)]
        both = [name for name in names if name in found and name in recorded]
        return lost + [d for n in both for d in differences(found[n], recorded[n], exact, rel, f"{where}/{n}")]
    if "values" in recorded:
        moved = number_differences(found["values"], recorded["values"], rel)
    else:
        moved = tensor_differences(found, recorded, rel)
    if not moved and exact and found["sha256"] != recorded["sha256"]:
        moved = ["equal up to rounding, but not bit by bit"]
    return [f"{where}: {difference}" for difference in moved]


class Golden:
    """The recorded file; it is compared with or, while recording, filled."""

    def __init__(self) -> None:
        stored = json.loads(FILE.read_text()) if FILE.exists() else {"fingerprint": {}, "losses": {}, "runs": {}}
        self.fingerprint = fingerprint()
        self.recorded_on = stored["fingerprint"]
        self.elsewhere: dict[str, Any] = stored.get("elsewhere", {})
        self.exact = self.fingerprint == self.recorded_on
        self.parts: dict[str, dict[str, Any]] = {part: stored[part] for part in ("losses", "runs")}
        self.new: set[str] = set()

    def is_exact(self, name: str) -> bool:
        """Whether this is the machine that the case was recorded on."""
        return bool(self.fingerprint == self.elsewhere.get(name, self.recorded_on))

    def check(self, part: str, name: str, found: dict[str, Any], elsewhere: float = REL) -> None:
        """Compare one case, or record it.

        Args:
            elsewhere: relative tolerance on another machine than the recorded one.
        """
        if RECORDING:
            self.parts[part][name] = found
            self.new.add(name)
            return
        assert name in self.parts[part], f"{name} is not recorded; see the docstring of {Path(__file__).name}"
        exact = self.is_exact(name)
        rel = REL if exact else elsewhere
        moved = differences(json.loads(json.dumps(found)), self.parts[part][name], exact, rel)
        assert not moved, "\n".join([f"{len(moved)} numbers moved", *moved[:40]])

    def write(self) -> None:
        """Write the file, without cases that are no more."""
        kept = {part: {k: v for k, v in cases.items() if k in CASES} for part, cases in self.parts.items()}
        of_case = {k: self.elsewhere.get(k, self.recorded_on) for k in CASES} | dict.fromkeys(
            self.new, self.fingerprint
        )
        most = self.fingerprint if self.new == set(CASES) else self.recorded_on
        others = {name: where for name, where in of_case.items() if where != most}
        FILE.write_text(render({"elsewhere": others, "fingerprint": most, **kept}) + "\n")


def render(value: Any, depth: int = 0) -> str:
    """JSON with sorted keys, one line for each part of a case."""
    if depth > 2 or not isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    inner = " " * (depth + 1)
    lines = ",\n".join(f"{inner}{json.dumps(key)}: {render(value[key], depth + 1)}" for key in sorted(value))
    return f"{{\n{lines}\n{' ' * depth}}}"


@pytest.fixture(scope="module")
def golden() -> Iterator[Golden]:
    """The recorded numbers; everything here runs on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recorded = Golden()
    yield recorded
    if RECORDING:
        recorded.write()
    torch.set_num_threads(threads)


# --- estimates and losses on made-up batches ------------------------------------------------------------------------


def further_outputs(critic: CriticOutput, seed: int) -> CriticOutput:
    """With every column that the head of any method gives, and quantiles out of order before sorting."""
    g = torch.Generator().manual_seed(seed)
    q, by_token = critic.quantile_values, critic.raw_crossing_frac

    def drawn(like: Tensor, factor: float) -> Tensor:
        return factor * torch.rand(like.shape, generator=g, dtype=like.dtype)

    columns = {name: drawn(by_token, 14.0) for name in ("bottleneck_kl", "semantic_nll", "semantic_entropy")}
    columns |= {"semantic_kl": drawn(by_token, 2.0)}
    columns |= {name: drawn(q, 3.0) - 1.5 for name in ("flow_velocity", "flow_velocity_other")}
    found = replace(critic, raw_crossing_frac=drawn(by_token, 0.5), **columns)
    return replace(found, perturbed_kl=drawn(by_token, 2.0))


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A record whose floating tensors have this type; drawn in float64, they are the same on every processor."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(entry, dtype) for name, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: cast(getattr(value, f.name), dtype) for f in fields(value)})
    return value


def shuffled(critic: CriticOutput, seed: int) -> CriticOutput:
    """The same quantiles in another order, as a critic without monotonicity gives them."""
    order = torch.randperm(critic.quantile_values.shape[-1], generator=torch.Generator().manual_seed(seed))
    assert critic.end_values is not None
    return replace(critic, quantile_values=critic.quantile_values[..., order], end_values=critic.end_values[..., order])


def made_up(algorithm: Algorithm, seed: int, dtype: torch.dtype) -> tuple[TrainBatch, OldOutputs, CriticOutput | None]:
    """A batch, what the models gave before the update, and what the critic gives in it."""
    batch = make_batch(seed)
    old = make_old(algorithm, batch, seed + 100)
    gap = torch.randn(old.logprobs.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    old = replace(old, logprobs=torch.where(batch.action_mask, old.logprobs + 0.5 * gap, 0.0))  # the cap of 2 matters
    if old.critic is None or algorithm.critic_config is None:
        return cast(batch, dtype), cast(old, dtype), None
    before, now = old.critic, make_critic(algorithm, batch, seed + 200)
    middle = torch.lerp(before.quantile_values, now.quantile_values, 0.3)
    now = replace(now, quantile_values=middle)
    if algorithm.critic_config.monotonicity == "none":
        before, now = shuffled(before, seed + 1), shuffled(now, seed + 2)
    before, now = further_outputs(before, seed + 300), further_outputs(now, seed + 400)
    return cast(batch, dtype), cast(replace(old, critic=before), dtype), cast(now, dtype)


def leaf(value: Tensor) -> Tensor:
    """A copy to differentiate with respect to."""
    return value.detach().clone().requires_grad_()


def gradients(loss: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Any]:
    """Records of the gradients that are not None."""
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name: tensor_record(grad) for name, grad in zip(leaves, found, strict=True) if grad is not None}


def micro_batches(num_rows: int) -> list[Tensor]:
    """The rows of two micro-batches of unequal size, so that losses and metrics of both have to add up."""
    return [torch.arange(num_rows)[: num_rows - 3], torch.arange(num_rows)[num_rows - 3 :]]


def policy_part(
    algorithm: Algorithm, batch: TrainBatch, old: OldOutputs, estimates: Estimates, seed: int
) -> tuple[dict[str, float], Metrics, dict[str, Any]]:
    """Loss, metrics and gradients of the policy."""
    g = torch.Generator().manual_seed(seed)
    shape, dtype = old.logprobs.shape, old.logprobs.dtype
    noise, entropy = (torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))
    leaves = {"logprobs": leaf(old.logprobs + 0.7 * noise)}
    if algorithm.needs_entropy:
        leaves["entropy"] = leaf(entropy.abs())
    whole = policy_inputs(algorithm, batch, old, leaves["logprobs"], leaves.get("entropy"))
    names = tuple(field.name for field in fields(PolicyInputs))
    found = []
    for rows in micro_batches(len(batch)):
        columns: dict[str, Any] = {name: getattr(whole, name) for name in names}
        columns = {name: None if x is None else x[rows] for name, x in columns.items()}
        found.append(algorithm.policy_loss(PolicyInputs(**columns), estimates.rows(rows), counts(batch)))
    loss = torch.stack([part.loss for part in found]).sum()
    return {"policy": loss.item()}, merge_metrics(part.metrics for part in found), gradients(loss, leaves)


def critic_part(
    algorithm: Algorithm, batch: TrainBatch, output: CriticOutput, estimates: Estimates | None
) -> tuple[dict[str, float], Metrics, dict[str, Any]]:
    """Loss, metrics and gradients of the critic; without estimates, of responses behind other prompts."""
    leaves = {name: leaf(value) for name, value in output.optional().items()}
    leaves["quantile_values"] = leaf(output.quantile_values)
    found = []
    for rows in micro_batches(len(batch)):
        columns = {name: leaves[name][rows] for name in output.optional()}
        part = CriticOutput(leaves["quantile_values"][rows], output.raw_crossing_frac[rows], **columns)
        if estimates is None:
            found.append(algorithm.contrast_loss(part, batch.rows(rows), counts(batch)))
        else:
            found.append(algorithm.critic_loss(part, batch.rows(rows), estimates.rows(rows), counts(batch)))
    name = "mismatched" if estimates is None else "critic"
    loss = torch.stack([part.loss for part in found]).sum()
    return {name: loss.item()}, merge_metrics(part.metrics for part in found), gradients(loss, leaves)


def one_look(algorithm: Algorithm, seed: int, dtype: torch.dtype) -> dict[str, Any]:
    """Estimates, losses, gradients and metrics on one made-up batch."""
    batch, old, output = made_up(algorithm, seed, dtype)
    with torch.no_grad():
        estimates = algorithm.estimate(batch, old, SingleProcess())
    record: dict[str, Any] = {"advantages": tensor_record(estimates.advantages)}
    if estimates.value_targets is not None:
        record["value_targets"] = tensor_record(estimates.value_targets)
    parts = [policy_part(algorithm, batch, old, estimates, seed + 500)]
    record["policy_gradients"] = parts[0][2]
    if output is not None:
        parts.append(critic_part(algorithm, batch, output, estimates))
        record["critic_gradients"] = parts[1][2]
    if output is not None and algorithm.needs_contrast:
        parts.append(critic_part(algorithm, batch, output, None))
        record["mismatched_gradients"] = parts[2][2]
    record["estimate_metrics"] = numbers_record(to_floats(estimates.metrics))
    record["losses"] = numbers_record({name: loss for part in parts for name, loss in part[0].items()})
    record["loss_metrics"] = numbers_record(to_floats(merge_metrics(part[1] for part in parts)))
    return record


def losses(case: Case) -> dict[str, Any]:
    """The second of two looks: running scales then hold something. Early and late in training."""
    algorithm = build_algorithm(case.name, case.options)
    record: dict[str, Any] = {}
    for seed, update in ((11, 1), (12, 9)):
        algorithm.begin_update(update, 10)
        algorithm.select(random_samples(4), update)  # a method with replay takes the second group for replayed
        record = one_look(algorithm, seed, case.dtype)
        algorithm.set_rates(0.15, 0.05)
        algorithm.end_step(taken=True)
        algorithm.end_update(SingleProcess(), 1)
    return record


# --- resumed runs ---------------------------------------------------------------------------------------------------


def engines(learner: Learner) -> list[Any]:
    """Of the policy and, if there is one, the critic."""
    return [engine for engine in (learner.policy, learner.critic) if engine is not None]


def saved(learner: Learner) -> dict[str, Any]:
    """A copy of all that a learner needs to go on."""
    state = {
        "engines": [(engine.module.state_dict(), engine.optimizer.state_dict()) for engine in engines(learner)],
        "algorithm": learner.algorithm.state_dict(),
        "learner": learner.state_dict(),
    }
    return copy.deepcopy(state)


def restore(learner: Learner, state: dict[str, Any]) -> None:
    """Put a fresh learner where the other one was."""
    for engine, (module, optimizer) in zip(engines(learner), state["engines"], strict=True):
        engine.module.load_state_dict(module)
        engine.optimizer.load_state_dict(optimizer)
    learner.algorithm.load_state_dict(state["algorithm"])
    learner.load_state_dict(state["learner"])


def weights(learner: Learner) -> dict[str, Tensor]:
    """All weights of each model in a row, by name."""
    found = {"policy": learner.policy, "critic": learner.critic}
    models = {name: dict(engine.full_weights()) for name, engine in found.items() if engine is not None}
    return {name: torch.cat([model[key].flatten() for key in sorted(model)]) for name, model in models.items()}


def resumed_run(case: Case, make_learner: Callable[..., Learner]) -> dict[str, Any]:
    """How far training moved all weights, their bits, and what the last update, after a load, reported."""
    learner = make_learner(case.name, case.options, CONFIG, num_updates=10)
    start = weights(learner)
    torch.manual_seed(0)
    for update in range(case.updates - 1):
        learner.update(random_samples(8, update), update, critic_only=update < case.warmup)
    state = saved(learner)
    learner = make_learner(case.name, case.options, CONFIG, num_updates=10)
    restore(learner, state)
    torch.manual_seed(1)
    result = learner.update(random_samples(8, case.updates), case.updates - 1)
    assert (result.skipped, result.notes) == ("", ())
    record: dict[str, Any] = {"metrics": numbers_record(to_floats(result.metrics))}
    for name, end in weights(learner).items():
        record[f"{name}_weights"] = tensor_record(end)
        record[f"{name}_moved"] = tensor_record(end.double() - start[name].double())
    return record


QUICK = ("ppo", "grpo", "dvpo", "vrpo")
"""Of the resumed runs, those that the fast tests make."""

# --- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_losses(name: str, golden: Golden) -> None:
    golden.check("losses", name, losses(CASES[name]))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name, case in CASES.items() if case.runs],
)
def test_resumed_run(name: str, golden: Golden, make_learner: Callable[..., Learner]) -> None:
    elsewhere = ANYTHING if name in ON_ROUNDING else REL_OF_RUNS
    golden.check("runs", name, resumed_run(CASES[name], make_learner), elsewhere)


def test_nothing_recorded_is_left_out(golden: Golden) -> None:
    recorded = {part: set(cases) for part, cases in golden.parts.items()}
    assert recorded["losses"] == set(CASES)
    assert recorded["runs"] == {name for name, case in CASES.items() if case.runs}


def test_bits_are_compared(golden: Golden) -> None:
    if not golden.exact and not RECORDING:
        pytest.skip(f"numbers were compared, but not bits: recorded on {golden.recorded_on}, not {golden.fingerprint}")

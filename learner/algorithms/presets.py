# Why so long: one table, an entry for each published method.
"""Published methods by name: an algorithm's type and the options that differ from its defaults. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """A whole method under one name.

    Attributes:
        type: a key of :data:`ALGORITHMS`.
        options: options that differ from that type's defaults.
        summary: what it is, in one sentence.
        source: where its formulas come from.
    """

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    source: str = ""


PRESETS: dict[str, Preset] = {
    "ppo": Preset(
        "ppo",
        {},
        "PPO-clip with GAE over a scalar critic whose step is clipped.",
        "arXiv 1707.06347, 1506.02438; separate lambdas 2503.01491",
    ),
    "grpo": Preset(
        "grpo",
        {},
        "No critic: rewards are normalised within the group of samples of one prompt.",
        "arXiv 2402.03300 Eq 3",
    ),
    "dvpo": Preset(
        "dvpo",
        {},
        "PPO with an ensemble of quantile critics whose lower tail is contracted and upper tail kept (form 'sound').",
        "arXiv 2512.03847; forms of Eq 2 and 5 to 9 are ours",
    ),
    "dvpo-literal": Preset(
        "dvpo",
        {
            "target_mode": "quantile_wise",
            "huber_kappa": 1.0,
            "risk_coef": 0.1,
            "cvar_coef": 1.0,
            "gain_coef": 1.0,
            "calibration": "target_tail",
            "shift_coef": 1.0,
            "shift_form": "hinge",
            "shape_coef": 1.0,
            "shape_ref": "target",
            "shape_contract": 1.0,
            "shape_expand": 1.0,
            "curvature_coef": 1.0,
            "curvature_form": "unimodal",
            "curvature_min_iqr": 0.05,
            "consistency_coef": 1.0,
        },
        "DVPO as a literal reading of the paper's equations, with unit weights; contracts the whole distribution.",
        "arXiv 2512.03847, a public re-reading of Eq 2 to 11",
    ),
    "ppo-max": Preset(
        "ppo",
        {"reward_correction": [{"type": "normalise"}], "kl_coef": 0.05, "kl_mode": "reward", "value_clip": 0.2},
        "PPO with rewards normalised by running statistics and clipped, a KL cost per token and a clipped value step.",
        "arXiv 2307.04964; pre-train the critic with learner.critic_warmup_steps and model.critic_path; its loss on "
        "pre-training text is not there",
    ),
    "vc-ppo": Preset(
        "ppo",
        {"lam_actor": 0.95, "lam_critic": 1.0},
        "PPO whose critic learns from undecayed returns while advantages keep a lambda below 1.",
        "arXiv 2503.01491; pre-train the critic with learner.critic_warmup_steps",
    ),
    "vapo": Preset(
        "ppo",
        {"lam_actor_alpha": 0.05, "lam_critic": 1.0, "clip_ratio_high": 0.28},
        "VC-PPO with a lambda that grows with the response's length, and a wider upper clip.",
        "arXiv 2504.05118; its extra likelihood loss on correct responses is not there",
    ),
    "hl-gauss": Preset(
        "ppo",
        {"critic": {"head": "categorical"}, "terms": [{"type": "cross_entropy", "projection": "hl_gauss"}]},
        "PPO whose critic classifies returns into bins, each target smeared over its neighbours by a normal law.",
        "arXiv 2403.03950; set critic.value_low and value_high to the range of your rewards",
    ),
    "c51": Preset(
        "ppo",
        {"critic": {"head": "categorical"}, "terms": [{"type": "cross_entropy", "projection": "two_hot"}]},
        "PPO whose critic classifies returns into bins, each target split between the two next to it.",
        "arXiv 1707.06887 Eq 7, 2403.03950; targets are numbers, so no law is bootstrapped",
    ),
    "bce": Preset(
        "ppo",
        {
            "critic": {"head": "categorical", "num_bins": 2},
            "terms": [{"type": "cross_entropy", "projection": "two_hot"}],
        },
        "PPO whose critic is a logistic regression of success: a value in (0, 1) with the binary cross-entropy.",
        "arXiv 2403.03950 (classification instead of regression); two bins are our form of it",
    ),
    "asyppo": Preset(
        "asyppo",
        {},
        "PPO with an ensemble of critics on different responses; where they agree the policy is left as it is.",
        "arXiv 2510.01656; heads of one critic instead of small models of their own",
    ),
    "dr-grpo": Preset(
        "dr_grpo",
        {},
        "GRPO without division by the group's spread and by the response's length.",
        "arXiv 2503.20783",
    ),
    "rloo": Preset(
        "rloo",
        {},
        "No critic: a sample's baseline is the mean of the other samples of its prompt.",
        "arXiv 2402.14740; the clipped ratio is ours",
    ),
    "qae": Preset(
        "qae",
        {},
        "GRPO with a quantile of the group's rewards as the baseline.",
        "arXiv 2509.22611; its place in GRPO's loss is our reading",
    ),
    "james-stein": Preset(
        "james_stein",
        {},
        "RLOO whose baseline is drawn towards the mean of the other prompts by as much as a prompt's own is uncertain.",
        "arXiv 2511.03710 Eq 10 and 13 to 16",
    ),
    "spo": Preset(
        "spo",
        {},
        "No groups: a value of each prompt that lasts over the run is the baseline; for prompts that recur.",
        "arXiv 2509.13232; a constant rho instead of one that follows the policy's KL",
    ),
    "s-grpo": Preset(
        "s_grpo",
        {"flip_rate": 0.1},
        "GRPO whose groups weigh by how much of their spread is left under a known rate of flips (set it).",
        "arXiv 2508.05928",
    ),
    "reinforce-pp": Preset(
        "reinforce_pp",
        {},
        "No critic: returns with a KL cost per token, whitened over the global batch.",
        "arXiv 2501.03262",
    ),
    "reinforce-pp-baseline": Preset(
        "reinforce_pp_baseline",
        {"kl_coef": 1e-3},
        "REINFORCE++ on rewards less their group's mean, with the KL penalty as a loss of its own.",
        "arXiv 2501.03262",
    ),
    "robust-bellman": Preset(
        "robust_bellman",
        {"uncertainty": "min_heads"},
        "PPO whose targets bootstrap from the least of three value heads.",
        "arXiv 2512.03847 names it as a baseline; everything but the minimum is our form",
    ),
    "robust-bellman-contamination": Preset(
        "robust_bellman",
        {"uncertainty": "contamination", "rho": 0.1},
        "PPO whose targets mix the least value of the batch into what they bootstrap from.",
        "our form of the robust baseline in arXiv 2512.03847",
    ),
    "robust-bellman-cvar": Preset(
        "robust_bellman",
        {"uncertainty": "cvar", "alpha": 0.3, "critic": {"num_quantiles": 200}},
        "PPO whose targets bootstrap from the lower tail of a quantile critic.",
        "our form of the robust baseline in arXiv 2512.03847",
    ),
    "robust-bellman-kl": Preset(
        "robust_bellman",
        {"uncertainty": "kl", "rho": 0.1, "critic": {"num_quantiles": 200}},
        "PPO whose targets bootstrap from the worst law within a KL ball around a quantile critic's.",
        "our form of the robust baseline in arXiv 2512.03847",
    ),
    "rfqi": Preset(
        "robust_bellman",
        {"uncertainty": "tv", "rho": 0.1, "critic": {"num_quantiles": 200}},
        "PPO whose targets bootstrap from the worst law within total variation rho of a quantile critic's.",
        "arXiv 2208.05129, inspired by it: our analogue for language models",
    ),
    "ppo-ensemble": Preset(
        "ppo",
        {"critic": {"num_heads": 3}},
        "PPO whose value is the mean of three heads that start apart.",
        "the mean of AsyPPO's heads without its masks (arXiv 2510.01656); no paper's own",
    ),
    "distrlvr": Preset(
        "dist_rlvr",
        {},
        "PPO with a quantile critic told several sampled futures, whose tails amplify advantages.",
        "Beyond Scalar Critics (openreview 3e46ayVUgj), arXiv 2105.11366; our reading of abstract and description",
    ),
    "cql-asym": Preset(
        "cql",
        {"asym_weight": 3.0, "contrast_coef": 0.0},
        "PPO whose critic pays more for over-estimates than for under-estimates.",
        "arXiv 2006.04779, inspired by it: our analogue for state values",
    ),
    "cql-contrast": Preset(
        "cql",
        {"asym_weight": 1.0, "contrast_coef": 0.05},
        "PPO whose critic also learns to value responses behind the wrong prompt less.",
        "arXiv 2006.04779, inspired by it: our analogue for state values",
    ),
    "vrpo": Preset(
        "vrpo",
        {},
        "PPO whose critic has an information bottleneck and is tied to the meaning of uncertain tokens.",
        "arXiv 2508.03058; sizes, weights and forms are ours",
    ),
    "vrpo-kl": Preset(
        "vrpo",
        {"sem_mode": "kl_ref"},
        "VRPO that ties uncertain tokens to the starting model's prediction instead.",
        "arXiv 2508.03058; our cleaner reading of the alignment",
    ),
    "vrpo-raven": Preset(
        "vrpo",
        {"regularisers": [{"type": "bottleneck"}, {"type": "semantic"}, {"type": "noise_augmented"}]},
        "VRPO whose latent should stay where it is when noise is put on the critic's state.",
        "arXiv 2407.18632 carried over to 2508.03058; noise on states and the plain KL are ours",
    ),
    "vrpo-dvpo": Preset(
        "vrpo_dvpo",
        {},
        "DVPO's quantile heads and losses on the latent of VRPO's bottleneck.",
        "our combination of arXiv 2508.03058 and 2512.03847",
    ),
    "nc-grpo": Preset(
        "nc_grpo",
        {"rates": {"false_positive_rate": 0.1, "false_negative_rate": 0.1}},
        "GRPO on rewards freed of a verifier's known error rates (set them), divided by the clean rewards' spread.",
        "arXiv 2510.18924; the group-specific spread is our form",
    ),
    "nc-dr-grpo": Preset(
        "dr_grpo",
        {"reward_correction": [{"type": "noise_corrected", "false_positive_rate": 0.1, "false_negative_rate": 0.1}]},
        "Dr.GRPO on rewards freed of a verifier's known error rates (set them); under AdamW the same as dr-grpo.",
        "arXiv 2510.18924, 2503.20783",
    ),
    "backward-ppo": Preset(
        "ppo",
        {"reward_correction": [{"type": "noise_corrected", "false_positive_rate": 0.1, "false_negative_rate": 0.1}]},
        "PPO on rewards freed of a verifier's known error rates (set them); after whitening the same as ppo.",
        "arXiv 2510.00915 (backward correction)",
    ),
    "forward-corrected": Preset(
        "reinforce",
        {"reward_correction": [{"type": "forward_corrected", "false_negative_rate": 0.1}]},
        "REINFORCE whose gradients are weighed so that a verifier's errors cancel; needs its false-negative rate only.",
        "arXiv 2510.00915 (forward correction)",
    ),
    "bapo": Preset(
        "grpo",
        {"policy_objective": {"type": "bapo"}, "loss_aggregation": "token_mean"},
        "GRPO whose clip bounds widen in each batch until positive tokens carry their share of the gradient.",
        "arXiv 2510.18927; the share counts active tokens, which is our form",
    ),
    "dapo": Preset(
        "grpo",
        {
            "clip_ratio_high": 0.28,
            "loss_aggregation": "token_mean",
            "reward_correction": [{"type": "group_filter"}],
            "num_minibatches": 4,
        },
        "GRPO with a wider upper clip, a mean over tokens, and without prompts whose samples all score the same.",
        "arXiv 2503.14476; no prompts are drawn in their place; add soft_overlong with your limit",
    ),
    "papo": Preset(
        "grpo",
        {"prompt_reading": {"coef": 0.01, "share": 0.6}},
        "GRPO with a bonus for saying something else than with most of the prompt hidden.",
        "arXiv 2507.06448 carried over from images to text; the hidden policy is detached, and the bound is ours",
    ),
    "gspo": Preset(
        "grpo",
        {"policy_objective": {"type": "gspo"}, "num_minibatches": 4},
        "GRPO whose ratio is that of a whole response, the geometric mean of its tokens', and clipped as a whole.",
        "arXiv 2507.18071 Eq 5 and 7; four mini-batches as in its experiments",
    ),
    "cispo": Preset(
        "grpo",
        {"policy_objective": {"type": "cispo"}, "loss_aggregation": "token_mean", "num_minibatches": 4},
        "GRPO's advantages in REINFORCE with a clipped importance weight, so that no token loses its gradient.",
        "arXiv 2506.13585 Eq 4 and 5; the bound of the weight and the number of mini-batches are ours",
    ),
    "real": Preset(
        "grpo",
        {"policy_objective": {"type": "real"}},
        "Rewards are labels, and the policy is trained as a classifier of its own responses.",
        "arXiv 2602.05630; within a batch's first step exact, later steps are our form",
    ),
    "apa": Preset(
        "ppo",
        {"policy_objective": {"type": "apa"}, "whiten": "none"},
        "PPO's critic, with the log-ratio to the starting policy regressed onto the advantage instead of a clip.",
        "arXiv 2306.02231; lambda and the mean over tokens are ours",
    ),
    "two-stage-entropy": Preset(
        "grpo",
        {"entropy_coef": 1e-3, "entropy_coef_late": -1e-3, "entropy_switch_frac": 0.8},
        "GRPO that raises token entropy for most of training and lowers it at the end.",
        "arXiv 2511.07738; coefficients are ours",
    ),
    "recap": Preset(
        "recap",
        {"kl_coef": 1e-3},
        "GRPO whose loss parts are weighed by their own convergence and steadiness, with replay of earlier prompts.",
        "arXiv 2510.21978; general-domain data is not part of it",
    ),
    "decoupled-vpo": Preset(
        "decoupled_vpo",
        {},
        "A value model is trained first, then frozen, and its values are PPO's advantages.",
        "arXiv 2502.16944; trained online and not conditioned on other trajectories",
    ),
    "dfpo": Preset(
        "dfpo",
        {},
        "DVPO whose value law is learned as a flow, by matching velocities instead of regressing quantiles.",
        "arXiv 2602.05890; all forms and weights are ours",
    ),
    "dvpo-winsorised": Preset(
        "dvpo",
        {"reward_correction": [{"type": "winsorise"}], "adv_aggregate": "trimmed"},
        "DVPO that clips each reward to what its own critic thinks possible; for heavy tails, not for 0/1 rewards.",
        "ours, on arXiv 2512.03847",
    ),
}
"""Preset name -> what it stands for."""

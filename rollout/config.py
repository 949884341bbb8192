"""Options of the rollout side: sampling, engine, data, rewards, noise."""

# Why so long: options with what each is for, and few other lines.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rollout.component import ComponentSpec, KeyPath, StrictModel
from rollout.rewards.answers.thinking import ThinkingConfig
from rollout.rewards.exact_match import FINAL_ANSWER, check_answer_pattern


class SamplingConfig(StrictModel):
    """How responses are sampled.

    Training uses the log-probabilities of the distribution actually sampled from, after temperature. Truncating
    options (top-p, top-k) are left out on purpose: they would bias the importance ratio.
    """

    temperature: float = Field(1.0, ge=0.0, le=10.0, description="Softmax temperature; 0 is greedy decoding.")
    max_response_tokens: int = Field(
        256, ge=1, description="Longest response, in tokens; longer ones are cut. Of one turn, where there are several."
    )
    stop: tuple[str, ...] = Field(
        (), description="Strings that end a response, besides the end-of-sequence token; one alone needs no list."
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _none_is_empty(cls, strings: tuple[str, ...]) -> tuple[str, ...]:
        # Every text has the empty one in it, so engines refuse it with the first request. White space may end a line.
        if "" in strings:
            raise ValueError("a stop string must not be empty")
        return strings


class RolloutConfig(StrictModel):
    """The rollout workers: how many, and how each one's vLLM engine is set up."""

    num_workers: int = Field(1, ge=1, le=4096, description="Rollout workers; each holds one vLLM engine.")
    min_workers: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Workers that the run needs to begin and to go on, at most num_workers, which is the default. For "
        "the others it does not wait: they come as soon as a host has room.",
    )
    max_workers: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Workers that hosts with room get in all, those that join later too; at least num_workers, which "
        "is the default.",
    )
    tensor_parallel_size: int = Field(1, ge=1, le=64, description="GPUs that share one engine.")
    max_prompt_tokens: int = Field(512, ge=1, description="Longest prompt, in tokens; longer ones are refused.")
    max_conversation_tokens: int | None = Field(
        None,
        ge=2,
        description="Longest conversation with an environment, in tokens: prompt, responses and what is said between "
        "them; a longer one is cut. Only where the task has environments; else it is prompt and response.",
    )
    max_turns: int = Field(
        8, ge=1, le=10_000, description="Most responses in a conversation with an environment; it is cut then."
    )
    environment_timeout_s: float = Field(
        30.0, gt=0.0, description="Longest time one call of an environment may take, in seconds; its trajectory fails."
    )
    max_concurrent_requests: int = Field(256, ge=1, description="Sequences one engine decodes at the same time.")
    kv_cache_mib: int = Field(256, ge=16, description="Size of one engine's KV cache on CPU, in MiB.")
    gpu_memory_utilization: float = Field(0.85, gt=0.0, le=1.0, description="Share of GPU memory for one engine.")
    engine_process: Literal["auto", "own", "worker"] = Field(
        "auto",
        description="Where an engine computes: in a process of its own, or in that of the 'worker' who talks with it, "
        "which starts twice as fast and is for CPUs; 'auto' takes the latter on CPU.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format of the engine's weights. float32 makes log-probabilities exact on CPU."
    )
    enforce_eager: bool = Field(True, description="No graph capture: faster start, slower steps on a GPU.")
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further engine arguments of vLLM by their own names, such as max_num_batched_tokens; refused are "
        "those that have an option here, and those that break exact log-probabilities. docs/gpus.md.",
    )
    weight_sync: Literal["auto", "object_store", "nccl"] = Field(
        "auto",
        description="How engines get new weights: 'nccl' needs GPUs on both sides, 'object_store' works everywhere; "
        "'auto' takes nccl where it can.",
    )
    verify_weights: bool = Field(
        True,
        description="After each sync compare checksums of all tensors (object_store) and a prompt's log-probabilities "
        "in engines and learner; a difference ends the run.",
    )
    canary_tolerance: float | None = Field(
        None,
        gt=0.0,
        description="Largest accepted difference of those log-probabilities, in nats; by default 0.001 where engine "
        "and learner compute in float32, else 0.5, and on average four times what it was at the first sync.",
    )
    reproducible: bool | None = Field(
        None,
        description="A random stream of its own for each response, so that the same weights and seed give the same one "
        "on any worker and after any loss; costs the engine about a quarter more on CPU. By default where it is needed "
        "for runs that can be repeated bit by bit: with training.max_staleness 0, and in studies.",
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How training responses are sampled.")

    @property
    def fewest_workers(self) -> int:
        """Workers without which the run waits."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @property
    def most_workers(self) -> int:
        """Workers that are wanted where there is room for them."""
        return self.num_workers if self.max_workers is None else self.max_workers

    def conflicts(self) -> Iterator[tuple[KeyPath, str]]:
        """Values that are right by themselves and wrong together: the key to change, and why."""
        if self.fewest_workers > self.num_workers:
            yield (
                ("rollout", "min_workers"),
                f"{self.min_workers} is more than rollout.num_workers = {self.num_workers}, with which the run begins",
            )
        if self.most_workers < self.num_workers:
            yield (
                ("rollout", "max_workers"),
                f"{self.max_workers} is less than rollout.num_workers = {self.num_workers}, with which the run begins",
            )
        prompt, response = self.max_prompt_tokens, self.sampling.max_response_tokens
        if self.longest_tokens < prompt + response:
            yield (
                ("rollout", "max_conversation_tokens"),
                f"{self.longest_tokens} leaves no room for a prompt and one response: rollout.max_prompt_tokens + "
                f"rollout.sampling.max_response_tokens = {prompt} + {response} = {prompt + response}",
            )

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest possible trajectory: a conversation, or a prompt and a response."""
        return self.max_conversation_tokens or self.max_prompt_tokens + self.sampling.max_response_tokens


class DataConfig(StrictModel):
    """Where prompts come from: a built-in task, or files."""

    task: ComponentSpec = Field(
        default_factory=lambda: ComponentSpec(type="chain"),
        description="The task: a built-in name, 'dataset' for JSONL/Parquet files, or 'package.module:Class'.",
    )
    shuffle: bool = Field(True, description="Shuffle the training prompts anew in each epoch.")


class PseudoLabelConfig(StrictModel):
    """Labels by the majority of a prompt's own samples, in place of its reference."""

    min_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of a prompt's samples that the winning answer needs; else no label."
    )
    answer_pattern: str = Field(
        FINAL_ANSWER,
        description="Regular expression; the answer is its only group in its last match ('^' and '$' match at lines).",
    )
    thinking: ThinkingConfig = Field(
        default_factory=ThinkingConfig, description="How thoughts are told from what is said; only that casts a vote."
    )

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        return check_answer_pattern(pattern)


DISPUTED_SHARE = 0.8
"""Of the gold labels, those that are asked for where samples disagree. The rest keeps error rates and the value model
in touch with what all samples agree on."""


class GoldLabelConfig(StrictModel):
    """True scores that training may see: of a few trajectories, which then teach it what the noisy ones are worth."""

    share: float = Field(0.05, gt=0.0, le=1.0, description="Share of trajectories whose true score is asked for.")
    choice: Literal["auto", "random", "disputed"] = Field(
        "auto",
        description="Of which ones: 'random'; or 'disputed', four in five where a prompt's samples give different "
        "answers, one label an answer, and the rest at random; 'auto' takes the latter where it can: with several "
        "samples of a prompt, and answers that can be the same.",
    )
    first_share: float | None = Field(
        None, gt=0.0, le=1.0, description="The share as long as few updates are done; None: as later."
    )
    first_updates: int = Field(
        0,
        ge=0,
        description="Updates of the policy during which 'first_share' holds: labels serve all that comes later.",
    )

    def share_at(self, policy_version: int) -> float:
        """The share of what the policy samples after so many updates."""
        if self.first_share is not None and policy_version < self.first_updates:
            return self.first_share
        return self.share

    @model_validator(mode="after")
    def _both_or_none(self) -> GoldLabelConfig:
        if (self.first_share is None) != (self.first_updates == 0):
            raise ValueError("first_share and first_updates are given together, or not at all")
        return self


class RewardConfig(StrictModel):
    """How trajectories are scored, and what happens when scoring fails."""

    functions: tuple[ComponentSpec, ...] = Field(
        default_factory=lambda: (ComponentSpec(type="exact_match"),),
        min_length=1,
        description="Rewards; the score is their sum, each times its 'weight' option.",
    )
    gold: tuple[ComponentSpec, ...] = Field(
        (),
        description="Verifiers that tell the clean score where 'functions' do not, for evaluation and reports only, "
        "unless 'gold_labels' lets training see some. None: what 'functions' say before noise counts as true.",
    )
    gold_share: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Share of trajectories, at random, that 'gold' is asked about; the estimates of 'trust' are from "
        "them, also where noise is injected and the clean score is known of all.",
    )
    gold_labels: GoldLabelConfig | None = Field(
        None,
        description="Let training see the true score ('gold', or 'functions' before noise) of some trajectories; the "
        "reward correction 'evidence' makes use of them. None: training sees no true score.",
    )
    answer_key: str = Field(
        "auto",
        pattern=r"^(auto|text|none|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$",
        description="What makes two responses to a prompt one answer, for 'evidence' and 'relabel': 'auto' the answer "
        "that the rewards read, or the text; 'text' the whole text; 'none' nothing; or your own 'module:function' of "
        "prompt and trajectory, which returns a text or None.",
    )
    pseudo_labels: PseudoLabelConfig | None = Field(
        None,
        description="Train on the agreement of a prompt's samples with their majority's answer; 'functions' then score "
        "evaluation, and training for reports, where there is a reference. None: train on 'functions'.",
    )
    noise: tuple[ComponentSpec, ...] = Field(
        (), description="Noise models applied to the score in this order. For experiments only; default none."
    )
    num_workers: int = Field(1, ge=1, le=1024, description="Reward service actors.")
    max_concurrent_requests: int = Field(
        64, ge=1, le=4096, description="Trajectories that one reward worker scores at the same time."
    )
    timeout_s: float = Field(30.0, gt=0.0, description="Longest time one call of a reward may take, in seconds.")
    max_retries: int = Field(
        2, ge=0, le=10, description="Further calls after an infrastructure error (connection, time-out, HTTP 5xx)."
    )
    error_reward: float | Literal["drop"] = Field(
        "drop", description="Score given when the reward function fails; 'drop' leaves the trajectory out."
    )
    max_error_frac: float = Field(
        0.2, ge=0.0, le=1.0, description="Share of failed scores in one step above which the run is stopped."
    )
    max_abstain_frac: float = Field(
        1.0, ge=0.0, le=1.0, description="Share of abstentions in one step above which the run is stopped."
    )

    @model_validator(mode="after")
    def _labels_can_be_told(self) -> RewardConfig:
        if self.gold_labels is not None and not (self.gold or self.noise or self.pseudo_labels):
            raise ValueError("gold_labels needs reward.gold, a verifier that tells more than reward.functions do")
        return self

    def disputed_share(self, samples_per_prompt: int | None) -> float:
        """The part of the gold labels that is asked for where samples disagree; the rest is drawn at random."""
        labels = self.gold_labels
        if labels is None or labels.choice == "random":
            return 0.0
        can = samples_per_prompt is not None and samples_per_prompt > 1 and self.answer_key != "none"
        return DISPUTED_SHARE if can else 0.0

    @property
    def compared_share(self) -> float:
        """Share of trajectories whose clean score may be compared with the observed one; 0 where nothing tells it."""
        return self.gold_share if self.gold or self.noise or self.pseudo_labels else 0.0

    @property
    def deadline_s(self) -> float:
        """Longest time until a trajectory has an outcome, retries and the pauses before them included, in seconds."""
        pauses = sum(longest_pause_s(retry) for retry in range(self.max_retries))
        return (1 + self.max_retries) * self.timeout_s + pauses


def longest_pause_s(retry: int) -> float:
    """Longest pause before retry number ``retry`` (from 0), in seconds: 0.5, 1, 2, 4, 8, 10, 10, ..."""
    return min(10.0, 0.5 * 2.0**retry)

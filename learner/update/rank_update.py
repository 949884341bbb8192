"""One rank's part of one update: its rows, micro-batch by micro-batch."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from learner.algorithms.records import Denominators, Estimates, OldOutputs, PolicyInputs
from learner.batch import MIN_PADDED_TOKENS, TrainBatch
from learner.engine.engine import UpdateRefused
from learner.metrics import Last, Max, Mean, Metrics, merge_metrics
from learner.models.spec import CriticOutput
from learner.plan import BatchPlan
from learner.update.distances.sampler_gap import SamplerGap
from learner.update.distances.start_drift import StartDrift
from learner.update.finite import estimated, looked_at, refuse_non_finite
from learner.update.old_outputs.critic import KeptPasses, OldCriticColumns, kept_passes
from learner.update.old_outputs.masked_prompt import with_hidden_prompt
from learner.update.old_outputs.reference import ReferenceColumns
from learner.update.rank import Rank
from learner.update.result import UpdateResult
from learner.update.step import ModelPass, backward, check, nothing
from rollout.trajectory import ScoredTrajectory


class RankUpdate:
    """This rank's part of one call of :meth:`learner.update.learner.Learner.update`."""

    def __init__(
        self,
        learner: Rank,
        samples: Sequence[ScoredTrajectory],
        batch: TrainBatch,
        plan: BatchPlan,
        index: int,
        critic_only: bool,
        critic_frozen: bool,
        own: Tensor,
        first_minibatch: int = 0,
    ) -> None:
        self.learner, self.samples, self.batch, self.plan, self.index = learner, samples, batch, plan, index
        self.algorithm, self.world, self.settings = learner.algorithm, learner.world, learner.settings
        self.critic_only, self.critic_frozen = critic_only, critic_frozen
        self.mismatched: TrainBatch | None = None
        self.slices = plan.rank_slices(self.world.rank)
        self.placeholder = TrainBatch.placeholder(self.settings.pad_token_id).to(self.world.device)
        self.metrics: list[Metrics] = []
        self.timings = dict.fromkeys(("drift", "old", "estimate", "policy", "critic"), 0.0)
        single_step = self.algorithm.config.num_epochs * plan.num_minibatches == 1
        reads_old = self.algorithm.needs_old_logprobs
        self.needs_old_logprobs = reads_old or not (single_step or critic_only)
        self.needs_reference = self.algorithm.needs_reference and (
            self.algorithm.estimates_with_reference or not critic_only
        )
        self.masked_prompt_share = None if critic_only else self.algorithm.masked_prompt_share
        self.needs_reference_signals = any(correction.needs_reference for correction in self.algorithm.corrections)
        self.old = OldOutputs(torch.full_like(batch.rewards, math.nan))
        self.estimates = Estimates(batch.rewards)
        self.shown_heads: dict[int, Tensor] = {}
        self.gap = SamplerGap(self.settings.limits, batch, index, own)
        self.num_bad_logprobs = torch.zeros(1, device=self.world.device)
        self.first_minibatch = first_minibatch
        self.kept = self._kept_passes()

    def _kept_passes(self) -> KeptPasses:
        """Passes of the critic that serve estimation and the first optimiser step both.

        Not under ZeRO-3, which expects a backward pass after each forward pass with a gradient.
        """
        config = self.settings.config
        if self.learner.critic is None or self.critic_frozen or config.zero_stage == 3:
            return KeptPasses(0, frozenset())
        number = self.plan.num_within(self.first_minibatch, config.micro_batch_tokens)
        return kept_passes(self.algorithm, self.placeholder, self.learner.critic_steps, number)

    def compare_with_start(self, drift: StartDrift) -> None:
        """Measure how far the policy, as it is before the update, has moved from the starting one."""
        with self._timed("drift"):
            self.metrics.append(drift.measure(self.learner, self.samples))

    def compute_old_outputs(self) -> None:
        """Run the models as they are before the update, then let the algorithm estimate.

        Raises:
            UpdateRefused: an output or an estimate is not finite, or sampler and learner disagree. Without a pass for
                the old log-probabilities the latter is found out by the only call of :meth:`optimise`.
        """
        where = f"update {self.index}, before the first step"
        with self._timed("old"), torch.no_grad():
            self.old = self._old_outputs()
            refuse_non_finite(looked_at(self.old, self.batch.action_mask, self.needs_old_logprobs), self.world, where)
            if self.needs_old_logprobs:
                self.metrics.append(self.gap.measure(self.world, where))
        with self._timed("estimate"), torch.no_grad():
            found = self.estimates = self.algorithm.estimate(self.batch, self.old, self.world)
            refuse_non_finite(estimated(found, self.batch.action_mask), self.world, where)
        self.metrics.append(self.estimates.metrics)
        self.old = replace(self.old, critic=None)  # what is read of it from here on is among the estimates

    def _old_outputs(self) -> OldOutputs:
        learner, rewards = self.learner, self.batch.rewards
        logprobs = torch.zeros_like(rewards) if self.needs_old_logprobs else torch.full_like(rewards, math.nan)
        reference = ReferenceColumns(self.batch, self.needs_reference_signals) if self.needs_reference else None
        shown = self.settings.traces.rows(self.plan.rank_rows(self.world.rank))
        masked = None if self.masked_prompt_share is None else torch.zeros_like(rewards)
        critic = None if learner.critic is None else OldCriticColumns(self.batch, self.algorithm, shown)
        everything = [(m, i, rows) for m, micros in enumerate(self.slices) for i, rows in enumerate(micros)]
        for minibatch, index, rows in everything:
            micro, place, real = self._micro(rows)
            inputs = micro.model_inputs()
            if self.needs_old_logprobs:
                found = learner.policy.forward(**inputs, temperature=self.settings.temperature)
                logprobs[place] = found["logprobs"][:real]
                if real:
                    self.gap.add(found["logprobs"], micro, rows)
            if reference is not None and learner.reference is not None:
                found = learner.reference(
                    **inputs,
                    temperature=self.settings.temperature,
                    entropy="value" if reference.with_signals else "none",
                    with_end_states=reference.with_signals,
                )
                reference.add(found, place, real)
            if masked is not None:
                masked[place] = self._behind_hidden_prompt(micro)[:real]
            if critic is not None:
                critic.add(self._old_values(micro, minibatch, index), micro, place, real)
        self.shown_heads = {} if critic is None else critic.shown_heads
        of_critic = None if critic is None else critic.output()
        if reference is None:
            return OldOutputs(logprobs, critic=of_critic, masked_logprobs=masked)
        signals = reference.entropy, reference.end_states
        return OldOutputs(logprobs, reference.logprobs, of_critic, *signals, masked)

    def _behind_hidden_prompt(self, micro: TrainBatch) -> Tensor:
        """Log-probabilities [batch seq] of the policy before the update that sees part of the prompt only."""
        assert self.masked_prompt_share is not None
        ids = with_hidden_prompt(micro, self.masked_prompt_share, self.settings.pad_token_id)
        inputs = {**micro.model_inputs(), "token_ids": ids}
        return self.learner.policy.forward(**inputs, temperature=self.settings.temperature)["logprobs"]

    def _old_values(self, micro: TrainBatch, minibatch: int, index: int) -> dict[str, Tensor]:
        """The critic's outputs before the update, with their graph where the first step goes on with them."""
        assert self.learner.critic is not None
        ends = {"end_positions": micro.lengths - 1} if self.algorithm.needs_end_values else {}
        keep = minibatch == self.first_minibatch and index < self.kept.number
        packed = self.kept.packed or not keep
        with torch.set_grad_enabled(keep):
            outputs = self.learner.critic.forward(**micro.model_inputs(), **ends, packed=packed)
        if keep:
            self.kept.put(index, outputs)
        return outputs

    def optimise(self, epoch: int, minibatch: int, counts: Denominators) -> None:
        """One optimiser step of the policy, and one of the critic: both, or neither.

        Raises:
            UpdateRefused: a loss, gradient or log-probability is not finite, or sampler and learner disagree.
        """
        learner, micros, passes = self.learner, self.slices[minibatch], list[ModelPass]()
        where = f"update {self.index}, epoch {epoch}, mini-batch {minibatch}"
        policy_lr, critic_lr = learner.learning_rates(self.plan.num_minibatches)
        start = len(self.metrics)
        self.num_bad_logprobs = torch.zeros(1, device=self.world.device)
        if learner.critic is not None and not self.critic_frozen:  # first, so that what was kept of it is let go
            with self._timed("critic"):
                others = () if self.mismatched is None else micros
                own = (self._critic_loss(rows, counts, i) for i, rows in enumerate(micros))
                both = itertools.chain(own, (self._contrast_loss(rows, counts) for rows in others))
                share = backward(learner.critic, both, len(micros) + len(others))
            passes.append(ModelPass("critic", learner.critic, critic_lr, share))
        if not self.critic_only:
            with self._timed("policy"):
                share = backward(learner.policy, (self._policy_loss(rows, counts) for rows in micros), len(micros))
            passes.insert(0, ModelPass("policy", learner.policy, policy_lr, share))
        try:
            self.metrics.append(check(passes, self.num_bad_logprobs, self.world, where))
            if not self.critic_only and not self.needs_old_logprobs:
                self.metrics.append(self.gap.measure(self.world, where))
        except UpdateRefused:
            for done in passes:
                done.engine.discard()
            del self.metrics[start:]
            self.algorithm.end_step(taken=False)
            raise
        for done in passes:
            with self._timed(done.name):
                norm = done.engine.step(done.lr)
            self.metrics.append({f"{done.name}/grad_norm": Mean(norm, 1.0), f"{done.name}/lr": Last(done.lr)})
        learner.policy_steps += not self.critic_only
        learner.critic_steps += learner.critic is not None and not self.critic_frozen
        self.algorithm.end_step(taken=True)

    def _policy_loss(self, rows: slice, counts: Denominators) -> Tensor:
        micro, place, real = self._micro(rows)
        outputs = self.learner.policy.forward(
            **micro.model_inputs(),
            temperature=self.settings.temperature,
            entropy="grad" if self.algorithm.needs_entropy else "value",
        )
        if not real:
            return nothing(outputs)
        logprobs, entropy = outputs["logprobs"], outputs["entropy"]
        self.num_bad_logprobs += (~logprobs.detach()[micro.action_mask].isfinite()).sum()
        if not self.needs_old_logprobs:
            self.gap.add(logprobs, micro, rows)
            if self.settings.traces.is_on:  # nothing of the update reads them any more
                self.old.logprobs[place] = logprobs.detach()[:real]
        inputs = PolicyInputs(
            logprobs=logprobs,
            old_logprobs=self.old.logprobs[place] if self.needs_old_logprobs else logprobs.detach(),
            rollout_logprobs=micro.rollout_logprobs,
            ref_logprobs=None if self.old.ref_logprobs is None else self.old.ref_logprobs[place],
            entropy=entropy if self.algorithm.needs_entropy else None,
            action_mask=micro.action_mask,
            masked_logprobs=None if self.old.masked_logprobs is None else self.old.masked_logprobs[place],
        )
        output = self.algorithm.policy_loss(inputs, self.estimates.cut(place), counts)
        self.metrics += [output.metrics, {"policy/entropy": _token_mean(entropy, micro.action_mask)}]
        return output.loss

    def _critic_loss(self, rows: slice, counts: Denominators, index: int) -> Tensor:
        micro, place, real = self._micro(rows)
        assert self.learner.critic is not None
        estimates = self.estimates.cut(place) if real else None
        outputs = self.kept.take(index)  # of the first step only: a later one finds nothing
        if outputs is None:
            inputs = self.algorithm.critic_inputs(micro, estimates, self.learner.critic_steps)
            outputs = self.learner.critic.forward(**micro.model_inputs(), **inputs)
        if estimates is None:
            return nothing(outputs)
        output = CriticOutput.of(outputs)
        result = self.algorithm.critic_loss(output, micro, estimates, counts)
        self.metrics.append(result.metrics)
        unused = {name: value for name, value in output.optional().items() if value.requires_grad}
        return result.loss + nothing(unused) if unused else result.loss

    def _contrast_loss(self, rows: slice, counts: Denominators) -> Tensor:
        assert self.learner.critic is not None and self.mismatched is not None
        micro, _, real = self._micro(rows, self.mismatched)
        outputs = self.learner.critic.forward(**micro.model_inputs())
        if not real:
            return nothing(outputs)
        result = self.algorithm.contrast_loss(CriticOutput.of(outputs), micro, counts)
        self.metrics.append(result.metrics)
        return result.loss

    def result(self) -> UpdateResult:
        """Metrics and timings, merged over ranks."""
        real = int(self.batch.lengths.sum())
        computed = sum(self._micro(rows)[0].token_ids.numel() for minibatch in self.slices for rows in minibatch)
        computed = real if self.learner.packs_rows else computed
        self.metrics.append(
            {
                "learner/padding_frac": Mean(computed - real, computed),
                "learner/rank_tokens_max": Max(real),
                "learner/micro_batches": Last(sum(map(len, self.slices))),
            }
        )
        everyone = self.world.gather_objects((merge_metrics(self.metrics), self.timings))
        timings = {phase: max(part[1][phase] for part in everyone) for phase in self.timings}
        return UpdateResult(merge_metrics(part[0] for part in everyone), timings)

    def _micro(self, rows: slice, batch: TrainBatch | None = None) -> tuple[TrainBatch, tuple[slice, slice], int]:
        """A micro-batch, the place of its values in [batch seq] columns, and its number of real rows.

        Args:
            batch: where the rows are from; default this rank's batch.
        """
        real = rows.stop - rows.start
        if not real:
            return self.placeholder, (rows, slice(self.placeholder.token_ids.shape[1])), 0
        micro = (self.batch if batch is None else batch).rows(rows)
        length = max(MIN_PADDED_TOKENS, int(micro.lengths.max()))
        return micro.cut(length), (rows, slice(length)), real

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        self.timings[phase] += time.perf_counter() - start


def denominators(samples: Sequence[ScoredTrajectory]) -> Denominators:
    """Global counts of one mini-batch."""
    return Denominators(max(1, sum(s.trajectory.num_response_tokens for s in samples)), max(1, len(samples)))


def _token_mean(values: Tensor, mask: Tensor) -> Mean:
    chosen = values.detach()[mask]
    return Mean(chosen.double().sum().item(), chosen.numel())

"""One update: epochs x mini-batches x micro-batches over one global batch, on every rank."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from learner.batch import MIN_PADDED_TOKENS, NonFiniteSampleError, collate
from learner.engine.engine import NonFiniteError, UpdateRefused
from learner.plan import micro_batches, plan_batch
from learner.update.contrast import mismatched
from learner.update.distances.start_drift import StartDrift
from learner.update.rank import Rank
from learner.update.rank_update import RankUpdate, denominators
from learner.update.result import UpdateResult
from learner.update.skipped_steps import SkippedSteps
from learner.update.token_traces import collect_traces
from rollout.trajectory import ScoredTrajectory


class Learner(Rank):
    """Policy, critic and algorithm of one rank. All ranks call the same methods with the same arguments."""

    drift = StartDrift()
    """When and how the policy is compared with the starting one; by default it is not."""

    def update(self, samples: Sequence[ScoredTrajectory], update_index: int, critic_only: bool = False) -> UpdateResult:
        """Train on one global batch.

        An optimiser step with a number that is not finite is not taken, by any model on any rank, and the next one is
        tried; without a finite look at the batch, or with a sampler that is too far away (``settings.limits``), none
        is. The result says what was not done. If nothing was, then nothing changed: neither weights nor optimisers nor
        the algorithm's running scales.

        Args:
            samples: the whole batch, the same on every rank.
            update_index: number of this update in the run, from 0; it seeds the shuffle and is named in notes. Also
                the weight version that fresh trajectories carry.
            critic_only: leave the policy as it is (critic warm-up).

        Raises:
            ValueError: the batch is empty, a trajectory cannot be trained on, or ``critic_only`` without a critic.
        """
        if critic_only and self.critic is None:
            raise ValueError(f"update {update_index}: critic_only, but {type(self.algorithm).__name__} has no critic")
        before = pickle.dumps(self.algorithm.state_dict())
        log = SkippedSteps()
        run = None
        try:
            run = self._prepare(samples, update_index, critic_only)
            if self.drift.is_due(update_index, self.settings.num_updates):
                run.compare_with_start(self.drift)
            run.compute_old_outputs()
        except UpdateRefused as refusal:
            log.refuse(refusal, self.algorithm.config.num_epochs * self.algorithm.config.num_minibatches)
        else:
            self._optimise(run, log)
        if log.num_taken:
            self.algorithm.end_update(self.world, log.num_taken)
        else:
            self.algorithm.load_state_dict(pickle.loads(before))
        result = log.complete(run.result() if run is not None else UpdateResult({}, {}))
        if run is None or not log.num_taken or not self.settings.traces.is_on:
            return result
        return replace(result, traces=collect_traces(run, samples, self.logprobs))

    def _prepare(self, samples: Sequence[ScoredTrajectory], update_index: int, critic_only: bool) -> RankUpdate:
        """Choose, plan and collate.

        Raises:
            NonFiniteError: a reward or a sampler's log-probability is not finite.
        """
        options, settings = self.algorithm.config, self.settings
        self.algorithm.begin_update(update_index, settings.num_updates)
        fresh = {id(sample) for sample in samples}
        samples = self.algorithm.select(samples, update_index)
        critic_only = critic_only or update_index < self.algorithm.critic_only_updates(settings.num_updates)
        frozen_from = self.algorithm.critic_frozen_from(settings.num_updates)
        critic_frozen = frozen_from is not None and update_index >= frozen_from
        seed = settings.seed * 1_000_003 + update_index
        lengths = [len(s.trajectory.token_ids) for s in samples]
        budget = settings.config.micro_batch_tokens
        costs = (self.fixed_cost, self.attention_cost)
        plan = plan_batch(lengths, self.world.size, options.num_minibatches, budget, seed, *costs)
        rows = plan.rank_rows(self.world.rank)
        try:
            batch = collate(samples, rows, pad_token_id=settings.pad_token_id, seed=settings.seed)
        except NonFiniteSampleError as error:
            raise NonFiniteError(f"update {update_index}: {error}") from error
        own = torch.tensor([id(samples[row]) in fresh for row in rows], dtype=torch.bool, device=self.world.device)
        run = RankUpdate(
            self,
            samples,
            batch.to(self.world.device),
            plan,
            update_index,
            critic_only,
            critic_frozen,
            own,
            first_minibatch=minibatch_order(seed, 0, plan.num_minibatches)[0],
        )
        if self.algorithm.needs_contrast:
            others = collate(mismatched(samples), rows, pad_token_id=settings.pad_token_id, seed=settings.seed)
            run.mismatched = others.to(self.world.device)
        return run

    def _optimise(self, run: RankUpdate, log: SkippedSteps) -> None:
        """Every optimiser step of an update, in the order that its seed gives."""
        seed = self.settings.seed * 1_000_003 + run.index
        for epoch in range(self.algorithm.config.num_epochs):
            for minibatch in minibatch_order(seed, epoch, run.plan.num_minibatches):
                members = [run.samples[i] for i in run.plan.minibatch_rows(minibatch)]
                try:
                    run.optimise(epoch, minibatch, denominators(members))
                except UpdateRefused as refusal:
                    log.refuse(refusal)
                else:
                    log.num_taken += 1

    @torch.no_grad()
    def logprobs(self, token_ids: Sequence[Sequence[int]], temperature: float = 1.0) -> list[list[float]]:
        """Log-probability of each token given those before it, 0.0 for the first, with the current weights."""
        results: list[list[float]] = [[] for _ in token_ids]
        lengths = [len(ids) for ids in token_ids]
        for rows in micro_batches(lengths, range(len(lengths)), self.settings.config.micro_batch_tokens):
            ids = torch.zeros((len(rows), max(MIN_PADDED_TOKENS, *(lengths[r] for r in rows))), dtype=torch.int64)
            mask = torch.zeros(ids.shape, dtype=torch.bool)
            for i, row in enumerate(rows):
                ids[i, : lengths[row]] = torch.tensor(token_ids[row])
                mask[i, 1 : lengths[row]] = True
            device = self.world.device
            found = self.policy.forward(token_ids=ids.to(device), action_mask=mask.to(device), temperature=temperature)
            for i, row in enumerate(rows):
                results[row] = found["logprobs"][i, : lengths[row]].tolist()
        return results


def minibatch_order(seed: int, epoch: int, number: int) -> list[int]:
    """In which order an epoch goes through the mini-batches."""
    order = list(range(number))
    random.Random(seed + epoch).shuffle(order)
    return order

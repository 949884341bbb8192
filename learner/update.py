"""One update: epochs x mini-batches x micro-batches over one global batch, on every rank."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from learner.algorithms.base import Algorithm
from learner.batch import MIN_PADDED_TOKENS, NonFiniteSampleError, collate, micro_batches, plan_batch
from learner.collective import TorchCollective
from learner.config import LearnerConfig
from learner.engine import NonFiniteError, TrainEngine, UpdateRefused
from learner.limits import UpdateLimits
from learner.local_update import LocalUpdate, denominators
from learner.mismatch import mismatched
from learner.models.policy import PolicyModel
from learner.refusals import RefusalLog
from learner.result import UpdateResult
from learner.schedule import learning_rate
from rollout.trajectory import ScoredTrajectory

__all__ = ["Learner", "UpdateResult", "UpdateSettings"]


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """What an update needs to know beside the models.

    Attributes:
        config: learning rates, schedule and the size of a micro-batch.
        num_updates: updates of the whole run, for the learning-rate schedule.
        temperature: of the distribution that responses are sampled from, > 0.
        seed: of the run.
        pad_token_id: token that fills up rows.
        limits: when an update must not happen.
        lr_scale: factor on both learning rates.
    """

    config: LearnerConfig
    num_updates: int
    temperature: float = 1.0
    seed: int = 0
    pad_token_id: int = 0
    limits: UpdateLimits = field(default_factory=UpdateLimits)
    lr_scale: float = 1.0


class Learner:
    """Policy, critic and algorithm of one rank. All ranks call the same methods with the same arguments."""

    def __init__(
        self,
        algorithm: Algorithm,
        policy: TrainEngine,
        critic: TrainEngine | None,
        reference: PolicyModel | None,
        world: TorchCollective,
        settings: UpdateSettings,
    ) -> None:
        if settings.temperature <= 0.0:
            raise ValueError(f"training needs a sampling temperature above 0, got {settings.temperature}")
        self.algorithm, self.policy, self.critic, self.reference = algorithm, policy, critic, reference
        self.world, self.settings = world, settings
        self.policy_steps = 0
        self.critic_steps = 0

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
        log = RefusalLog()
        run = None
        try:
            run = self._prepare(samples, update_index, critic_only)
            run.look_back()
        except UpdateRefused as refusal:
            log.refuse(refusal, self.algorithm.config.num_epochs * self.algorithm.config.num_minibatches)
        else:
            self._optimise(run, log)
        if log.num_taken:
            self.algorithm.end_update(self.world, log.num_taken)
        else:
            self.algorithm.load_state_dict(pickle.loads(before))
        return log.complete(run.result() if run is not None else UpdateResult({}, {}))

    def _prepare(self, samples: Sequence[ScoredTrajectory], update_index: int, critic_only: bool) -> LocalUpdate:
        """Choose, plan and collate.

        Raises:
            NonFiniteError: a reward or a sampler's log-probability is not finite.
        """
        options, settings = self.algorithm.config, self.settings
        self.algorithm.begin_update(update_index, settings.num_updates)
        num_own = len(samples)
        samples = self.algorithm.select(samples, update_index)
        critic_only = critic_only or update_index < self.algorithm.critic_only_updates(settings.num_updates)
        frozen_from = self.algorithm.critic_frozen_from(settings.num_updates)
        critic_frozen = frozen_from is not None and update_index >= frozen_from
        seed = settings.seed * 1_000_003 + update_index
        lengths = [len(s.trajectory.token_ids) for s in samples]
        plan = plan_batch(lengths, self.world.size, options.num_minibatches, settings.config.micro_batch_tokens, seed)
        rows = plan.rank_rows(self.world.rank)
        try:
            batch = collate(samples, rows, pad_token_id=settings.pad_token_id, seed=settings.seed)
        except NonFiniteSampleError as error:
            raise NonFiniteError(f"update {update_index}: {error}") from error
        own = torch.tensor([row < num_own for row in rows], dtype=torch.bool, device=self.world.device)
        run = LocalUpdate(
            self, samples, batch.to(self.world.device), plan, update_index, critic_only, critic_frozen, own
        )
        if self.algorithm.needs_mismatched:
            others = collate(mismatched(samples), rows, pad_token_id=settings.pad_token_id, seed=settings.seed)
            run.mismatched = others.to(self.world.device)
        return run

    def _optimise(self, run: LocalUpdate, log: RefusalLog) -> None:
        """Every optimiser step of an update, in the order that its seed gives."""
        seed = self.settings.seed * 1_000_003 + run.index
        for epoch in range(self.algorithm.config.num_epochs):
            order = list(range(run.plan.num_minibatches))
            random.Random(seed + epoch).shuffle(order)
            for minibatch in order:
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

    def learning_rates(self, num_minibatches: int) -> tuple[float, float]:
        """Of the next optimiser step of the policy and of the critic."""
        config = self.settings.config
        steps = self.algorithm.config.num_epochs * num_minibatches
        first = self.algorithm.critic_only_updates(self.settings.num_updates)
        policy_updates = self.settings.num_updates - max(first, config.critic_warmup_steps if self.critic else 0)
        schedule, scale = (config.lr_warmup_frac, config.lr_schedule), self.settings.lr_scale
        return (
            scale * learning_rate(self.policy_steps, max(1, policy_updates) * steps, config.policy_lr, *schedule),
            scale * learning_rate(self.critic_steps, self.settings.num_updates * steps, config.critic_lr, *schedule),
        )

    def state_dict(self) -> dict[str, int]:
        """Counters of optimiser steps, for the checkpoint."""
        return {"policy_steps": self.policy_steps, "critic_steps": self.critic_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the counters."""
        self.policy_steps, self.critic_steps = state["policy_steps"], state["critic_steps"]

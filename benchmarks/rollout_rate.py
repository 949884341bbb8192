"""Responses through the whole producing half of a run against the engine alone.

``python -m benchmarks.rollout_rate [--config CONFIG] [--rounds 5]`` prints the table of docs/benchmarks.md.

How it is measured. One rollout worker and one reward worker, actors of a private Ray, the rest of the loop in this
process as in the controller's. In each round, one after the other, on as many prompts and with the same options:

* ``bare``: in the rollout worker's own process all requests are given to its vLLM engine, which is stepped until the
  last one is done. Nothing is decoded, packed, scored or sent.
* ``pool``: the same through :class:`actors.pools.rollout_pool.RolloutPool`; trajectories stay in the object store.
* ``scored``: the same, and each is scored by the reward worker.
* ``run``: prompts, groups, ledger, staleness and batches as in a run, with a learner that does nothing.

A figure is the median over rounds of tokens a second, over those of ``bare`` in the same round. The engine has a core
of its own, the others share the second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.loop.activity import ActivityClock
from actors.loop.generation import FailureLimits, Generation
from actors.loop.group_buffer import GroupBuffer
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from actors.workers.reward_worker import RewardWorker
from actors.workers.rollout_worker import RolloutWorker
from cluster.config.object_store import chosen_object_store_mib
from cluster.config.paths import absolute_model_path
from cluster.config.prompts import RunPrompts, render_prompts
from cluster.config.run_config import RunConfig, load_config
from cluster.run.assembly import open_records
from cluster.run.session import ray_session
from rollout.sampling.vllm_options import engine_environment, response_params
from rollout.trajectory import SampleRequest

MEASUREMENTS = ("bare", "pool", "scored", "run")
"""Methods of :class:`Bench`."""


class TellsCpu:
    """Mixed into an actor."""

    async def cpu_s(self) -> float:
        """CPU seconds of its process so far."""
        return time.process_time()


class MeasuredWorker(TellsCpu, RolloutWorker):
    """A rollout worker whose engine can be timed alone."""

    async def bare(self, requests: Sequence[SampleRequest]) -> float:
        """Tokens a second of the engine with nothing around it."""
        engine, sampling = self._engine._engine, self._config.sampling
        begin = time.perf_counter()
        for number, request in enumerate(requests):
            seed = self._runner._seed(request, "sampling")
            prompt = {"prompt_token_ids": list(request.prompt.token_ids)}
            engine.add_request(f"bare-{number}", prompt, response_params(sampling, seed))
        tokens = 0
        while engine.has_unfinished_requests():
            tokens += sum(len(output.outputs[0].token_ids) for output in engine.step() if output.finished)
        return tokens / (time.perf_counter() - begin)


class MeasuredReward(TellsCpu, RewardWorker):
    """A reward worker that tells its CPU time."""


class Bench:
    """The parts of a run without its learner.

    Args:
        config: of the run.
        folder: for what a run writes.
        prompts: of the run.
        number: responses of one measurement.
    """

    def __init__(self, config: RunConfig, folder: Path, prompts: RunPrompts, number: int) -> None:
        self.config, self.folder, self.prompts, self.number = config, folder, prompts, number
        path = absolute_model_path(config.model.path)
        environment = {"env_vars": engine_environment(on_gpu=False)}
        self.worker = (
            ray.remote(MeasuredWorker)
            .options(num_cpus=1, max_concurrency=1000, runtime_env=environment)
            .remote("rollout-0", path, path, config.rollout, config.seed, False, task=config.data.task)
        )
        self.reward = (
            ray.remote(MeasuredReward)
            .options(num_cpus=0, max_concurrency=1000)
            .remote(config.reward, config.seed, config.training.samples_per_prompt)
        )
        self.next_epoch = 0

    def requests(self) -> list[SampleRequest]:
        """As many as one measurement takes, none of which was asked for before."""
        epoch, self.next_epoch = self.next_epoch, self.next_epoch + 1
        found: list[SampleRequest] = []
        for index in range(self.number):
            _, prompt = self.prompts.training.at(index)
            found.append(SampleRequest(prompt, 10**6 * (epoch + 1) + index))
        return found

    async def cpu(self) -> dict[str, float]:
        """CPU seconds so far by process."""
        worker, reward = await asyncio.gather(self.worker.cpu_s.remote(), self.reward.cpu_s.remote())
        return {"engine": worker, "reward": reward, "controller": time.process_time()}

    def pools(self) -> tuple[RolloutPool, RewardPool]:
        """New ones over the same workers."""
        recovery, reward = self.config.recovery, self.config.reward
        rollouts = RolloutPool([self.worker], self.config.rollout.max_concurrent_requests, recovery.request_timeout_s)
        return rollouts, RewardPool([self.reward], None, reward.deadline_s, max_requests_per_worker=64)

    async def bare(self) -> float:
        """Tokens a second of the engine alone."""
        return float(await self.worker.bare.remote(self.requests()))

    async def pool(self) -> float:
        """Tokens a second through the rollout pool."""
        pool, _ = self.pools()
        begin = time.perf_counter()
        found = await asyncio.gather(*map(pool.sample, self.requests()))
        return sum(summary.num_response_tokens for summary, _ in found) / (time.perf_counter() - begin)

    async def scored(self) -> float:
        """Tokens a second through both pools."""
        pool, rewards = self.pools()

        async def one(request: SampleRequest) -> int:
            summary, trajectory = await pool.sample(request)
            await rewards.score(request.prompt, trajectory)
            return summary.num_response_tokens

        begin = time.perf_counter()
        return sum(await asyncio.gather(*map(one, self.requests()))) / (time.perf_counter() - begin)

    async def run(self) -> float:
        """Tokens a second of all that a run does but training."""
        training, (pool, rewards) = self.config.training, self.pools()
        steps = max(1, self.number // training.trajectories_per_step)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        records = open_records(config=self.config, folder=folder, prompts=self.prompts, step=0, state=None)
        buffer = GroupBuffer(training.prompts_per_step, training.max_staleness, steps)
        generation = Generation(
            source=self.prompts.training,
            samples_per_prompt=training.samples_per_prompt,
            limits=FailureLimits(errors=1e9, abstentions=1e9, per_step=training.trajectories_per_step),
            buffer=buffer,
            pool=pool,
            rewards=rewards,
            clock=ActivityClock(),
            records=records,
            run_seed=self.config.seed,
            gold_share=self.config.reward.compared_share,
        )
        begin, tokens = time.perf_counter(), 0
        generation.start()
        for step in range(steps):
            samples = [sample for group in await buffer.take(600.0) for sample in group.samples]
            tokens += sum(sample.summary.num_response_tokens for sample in samples)
            records.ledger.commit_step(step + 1, [sample.summary.trajectory_id for sample in samples])
            await buffer.advance(step + 1)
        seconds = time.perf_counter() - begin
        await generation.stop()
        records.ledger.close()
        return tokens / seconds


async def measure(bench: Bench, rounds: int) -> dict[str, list[dict[str, float]]]:
    """All measurements in each round; of each its rate, and CPU milliseconds of each process a trajectory."""
    await bench.worker.start.remote()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MEASUREMENTS}
    for number in range(rounds + 1):
        for name in MEASUREMENTS:
            call: Callable[[], Awaitable[float]] = getattr(bench, name)
            before = await bench.cpu()
            rate = await call()
            after = await bench.cpu()
            cpu = {key: 1000 * (after[key] - before[key]) / bench.number for key in before}
            if number:  # the first round holds what happens once
                found[name].append({"tokens_per_s": rate, **cpu})
    await bench.worker.stop.remote()
    return found


def table(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Medians over rounds, and of each round's ratio to ``bare``."""
    rows = []
    for name, rounds in found.items():
        ratios = [here["tokens_per_s"] / bare["tokens_per_s"] for here, bare in zip(rounds, found["bare"], strict=True)]
        medians = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        rows.append(
            {"what": name, "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)} | medians
        )
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--responses", type=int, default=1024)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    config = load_config(options.config)
    training = config.training.model_copy(update={"max_staleness": 2})
    rollout = config.rollout.model_copy(update={"num_workers": 1})
    config = config.model_copy(update={"training": training, "rollout": rollout})
    prompts = render_prompts(config, absolute_model_path(config.model.path)).for_run(config)
    with (
        tempfile.TemporaryDirectory() as folder,
        ray_session(config, Path(folder), chosen_object_store_mib(config, trains=True)),
    ):
        bench = Bench(config, Path(folder), prompts, options.responses)
        rows = table(asyncio.run(measure(bench, options.rounds)))
    print("what     ratio  (range)        tokens/s   CPU ms a trajectory: engine  controller  reward")
    for row in rows:
        spread = f"({row['low']:.2f} to {row['high']:.2f})"
        cpu = f"{row['engine']:27.2f} {row['controller']:11.2f} {row['reward']:7.2f}"
        print(f"{row['what']:8s} {row['ratio']:5.2f}  {spread} {row['tokens_per_s']:10.0f}   {cpu}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

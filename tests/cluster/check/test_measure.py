"""``dvpo check --measure``: what the short run is, and what is computed from it. Whole ones are in test_run.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.check.measure import MAX_EVAL_PROMPTS, MAX_TRAJECTORIES, NUM_STEPS, measured, measuring_config
from cluster.config.run_config import RunConfig


def config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "m"}, **sections})


@pytest.mark.parametrize(
    ("prompts", "samples", "ranks", "expected"),
    [(8, 4, 1, 8), (128, 1, 1, 128), (512, 1, 1, MAX_TRAJECTORIES), (512, 8, 1, 16), (64, 1000, 2, 2), (3, 50, 1, 3)],
)
def test_steps_are_no_larger_than_they_need_to_be(prompts: int, samples: int, ranks: int, expected: int) -> None:
    training = {"prompts_per_step": prompts, "samples_per_prompt": samples, "num_eval_prompts": 1000}
    run = config(training=training, learner={"num_workers": ranks}, cluster={"num_cpus": 8})
    short, scale, eval_scale = measuring_config(run, Path("there"))
    assert short.training.prompts_per_step == expected
    assert scale == prompts / expected
    assert eval_scale == 1000 / MAX_EVAL_PROMPTS
    assert RunConfig.model_validate(short.model_dump()) == short  # it is one that could have been written


def test_nothing_outside_of_its_folder_is_written() -> None:
    sinks = [{"type": "examples.my_sink:CsvSink"}]
    run = config(name="mine", logging={"sinks": sinks}, learner={"critic_warmup_steps": 20})
    short, _, _ = measuring_config(run, Path("there"))
    assert short.run_dir == Path("there/measure")
    assert (short.logging.sinks, short.logging.tensorboard) == ((), False)
    assert short.learner.critic_warmup_steps == 0
    assert (short.training.num_steps, short.training.max_staleness) == (NUM_STEPS, run.training.max_staleness)


def test_the_whole_run_is_the_sum_of_its_parts() -> None:
    step = {"time/generate_s": 3.0, "time/train_s": 1.0, "time/overlap_frac": 0.25}
    lines = [
        {"time/eval_s": 9.0},
        {**step, "time/step_s": 30.0},  # the first ones warm up
        {**step, "time/step_s": 20.0},
        {**step, "time/step_s": 4.0},
        {**step, "time/step_s": 5.0, "time/generate_s": 4.0},
        {**step, "time/step_s": 7.0, "time/eval_s": 2.0},
    ]
    found = measured(lines, around=(20.0, 0.5, 1.5), scale=4.0, eval_scale=2.0)
    assert (found.step_s, found.generate_s, found.train_s, found.eval_s) == (20.0, 12.0, 4.0, 4.0)
    training = {"num_steps": 100, "eval_every_steps": 30, "checkpoint_every_steps": 40}
    assert found.total_s(config(training=training)) == 20.0 + 100 * 20.0 + 5 * 4.0 + 3 * 0.5 + 1.5
    once = {"num_steps": 100, "eval_every_steps": 0, "checkpoint_every_steps": 0}
    assert found.total_s(config(training=once)) == 20.0 + 100 * 20.0 + 2 * 4.0 + 0.5 + 1.5
    text = "\n".join(found.lines(config(training=training)))
    assert "a step takes about 20 s (computed from steps of 1/4 of the size)" in text
    assert "the whole run about 34:03" in text

"""Every mistake gets one clear message (what, where, what would be right), exit status 2, and no traceback.

Nothing is started: no test here waits for Ray or an engine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

ROOT = Path(__file__).resolve().parents[3]
CODES = set(re.findall(r"^### (\S+)$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE))
Dvpo = Callable[..., Result]


def assert_refused(result: Result, *phrases: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for phrase in phrases:
        assert phrase in result.output
    # Of several lines, the last one may count what is not shown.
    codes = [
        re.search(r"\[([a-z]+(?:-[a-z]+)+)\]\)?$", line) for line in result.output.splitlines() if "rror: " in line
    ]
    assert codes and all(code is not None and code[1] in CODES for code in codes), result.output


# name: (old text, new text, phrases of the message). The text is conftest.RUN, whose lines the messages name.
EDITS: dict[str, tuple[str, str, list[str]]] = {
    "unknown section": ("algorithm:", "algoritm:", ["small.yaml:9: algoritm: unknown key", "mean 'algorithm'?"]),
    "short key": ("rollout:", "learner: {lr: 1}\nrollout:", ["small.yaml:11: learner.lr", "mean 'policy_lr' or"]),
    "misspelt key": ("num_steps: 2", "num_stepss: 2", ["training.num_stepss: unknown key", "mean 'num_steps'?"]),
    "key elsewhere": ("name: small", "num_steps: 2", ["small.yaml:1: num_steps", "there is 'training.num_steps'"]),
    "wrong type": ("num_steps: 2", "num_steps: two", ["small.yaml:15: training.num_steps", "integer", "'two'"]),
    "out of bounds": ("num_steps: 2", "num_steps: 0", ["training.num_steps", "greater than or equal to 1", "(got 0)"]),
    "not a choice": ("rollout:", "learner: {zero_stage: 7}\nrollout:", ["must be 0, 1, 2 or 3", "(got 7)"]),
    "number or word": (
        "  functions:",
        "  error_reward: no\n  functions:",
        ["reward.error_reward", "or must be 'drop' (got 'no')"],
    ),
    "number to base 8": (
        "num_steps: 2",
        "num_steps: 010",
        ["small.yaml:15: training.num_steps: 010 begins with 0", "write 10, or '010' in quotes"],
    ),
    "number to base 60": (
        "num_steps: 2",
        "num_steps: 1:30",
        ["small.yaml:15: training.num_steps: 1:30 is a"],
    ),
    "true for a number": ("num_steps: 2", "num_steps: true", ["15: training.num_steps: must be a number, not true"]),
    "yes for a number": ("num_steps: 2", "num_steps: yes", ["15: training.num_steps: must be", "(got 'yes')"]),
    "off for a choice": ("rollout:", "learner: {zero_stage: off}\nrollout:", ["zero_stage: must be", "'off'"]),
    "false for a choice": ("rollout:", "learner: {zero_stage: false}\nrollout:", ["zero_stage: must be a number"]),
    "true for a component's number": ("num_eval: 9", "num_eval: true", ["data.task.num_eval: must be a number"]),
    "true in a list of numbers": (
        "{type: exact_match}",
        "{type: exact_match, score_range: [0, true]}",
        ["small.yaml:8: reward.functions.0.score_range: must be a number, not true"],
    ),
    "variable that is not set": (
        "name: small",
        "output_dir: $NOT_SET_ANYWHERE/runs",
        ["small.yaml:1: output_dir: the environment variable 'NOT_SET_ANYWHERE' is not set"],
    ),
    "unknown user": ("name: small", "output_dir: ~nobody-here/x", ["1: output_dir: no home folder is known for"]),
    "not finite": ("rollout:", "learner: {policy_lr: .nan}\nrollout:", ["learner.policy_lr", "finite"]),
    "not a section": ("training:\n", "logging: 3\ntraining:\n", ["small.yaml:14: logging: must be a mapping", "3"]),
    "bare component": ("{type: exact_match}", "exact_match", ["reward.functions.0: must be a mapping", "{type: NAME"]),
    "no type": ("{type: exact_match}", "{weight: 1}", ["reward.functions.0.type: required but not given"]),
    "no rewards": ("\n    - {type: exact_match}", " []", ["reward.functions", "at least 1 item"]),
    "key twice": ("name: small", "name: a\nname: b", ["small.yaml:2: name: given twice, first on line 1"]),
    "not YAML": ("name: small", "name: [small", ["small.yaml:", "not valid YAML"]),
    "numeric key": ("name: small", "3: small", ["small.yaml:1: a key must be a name"]),
    "bad name": ("name: small", "name: a/b", ["small.yaml:1: name: does not have the right form", "'a/b'"]),
    "bad address": ("cluster:", "cluster:\n  address: here", ["cluster.address", "HOST:PORT"]),
    "greedy training": ("sampling: {", "sampling: {temperature: 0, ", ["sampling.temperature", "above 0"]),
    "two settings of one name": (
        "training:",
        "evaluation: {sampled: [{temperature: 0.6}, {temperature: 0.6, top_p: 0.9}]}\ntraining:",
        ["small.yaml:14: evaluation.sampled: two settings are called 't0.6'; give them different names"],
    ),
    "more than there are samples": (
        "training:",
        "evaluation: {sampled: [{samples: 4, at: 8}]}\ntraining:",
        ["small.yaml:14: evaluation.sampled.0: 'at' has 8, but there are 4 samples of each prompt"],
    ),
    "evaluated responses too long": (
        "training:",
        "evaluation: {sampled: [{max_response_tokens: 99}]}\ntraining:",
        ["small.yaml:14: evaluation.sampled.0.max_response_tokens: 99 and a prompt of 32", "take at most 24"],
    ),
    "no such category": (
        "training:",
        "evaluation: {category: levle}\ntraining:",
        [
            "small.yaml:14: evaluation.category: no question of split 'test' has a column 'levle'",
            "further columns: none",
        ],
    ),
    "idle ranks": ("rollout:", "learner: {num_workers: 17}\nrollout:", ["learner.num_workers", "16 trajectories"]),
    "endless warm-up": ("rollout:", "learner: {critic_warmup_steps: 2}\nrollout:", ["learner.critic_warmup_steps"]),
    "adapters of no layer": (
        "model:\n",
        "model:\n  lora: {target_modules: [q_prj]}\n",
        ["small.yaml:3: model.lora.target_modules: the model has no linear layer 'q_prj'; did you mean 'q_proj'?"],
    ),
    "adapters by another's names": ("model:\n", "model:\n  lora: {r: 8}\n", ["small.yaml:3: model.lora.r", "rank"]),
    "adapters with dropout": (
        "model:\n",
        "model:\n  lora: {lora_dropout: 0.1}\n",
        ["model.lora.lora_dropout: unknown"],
    ),
    "adapters and a split reference": (
        "model:\n",
        "learner: {reference: offloaded}\nmodel:\n  lora: {}\n",
        ["learner.reference: 'offloaded' has no effect with model.lora"],
    ),
    "unequal shards": ("rollout:", "rollout:\n  tensor_parallel_size: 2", ["cluster.gpus_per_rollout_worker", "= 2"]),
    "two clusters": ("cluster:", "cluster:\n  address: auto\n  num_cpus: 2", ["cluster.num_cpus", "private Ray"]),
    "slow reward": ("  functions:", "  timeout_s: 9999\n  functions:", ["reward.timeout_s", "step_timeout_s"]),
    "unknown task": ("type: chain,", "type: chian,", ["small.yaml:5: data.task.type", "'chain'?"]),
    "unknown task option": ("num_eval: 9", "num_evals: 9", ["data.task.num_evals: unknown key", "'num_eval'?"]),
    "bad task option": ("num_eval: 9", "num_eval: 0", ["data.task.num_eval", "greater than or equal to 3"]),
    "unknown reward": ("exact_match", "exact_mach", ["small.yaml:8: reward.functions.0.type", "'exact_match'?"]),
    "no such module": ("exact_match", '"nowhere:Reward"', ["functions.0.type", "cannot import module 'nowhere'"]),
    "malformed path": ("exact_match", '"nowhere:"', ["'nowhere:' is not of the form 'package.module:Name'"]),
    "no such class": ("exact_match", '"rollout.rewards.exact_match:ExactMach"', ["did you mean 'ExactMatch'?"]),
    "not a reward": ("exact_match", '"rollout.tasks.chain:Chain"', ["is not a subclass of rollout.rewards.base"]),
    "unknown noise": (
        "  functions:",
        "  noise: [{type: symetric_flip, p: 0.3}]\n  functions:",
        ["small.yaml:7: reward.noise.0.type: unknown name 'symetric_flip'", "did you mean 'symmetric_flip'?"],
    ),
    "bad noise option": (
        "  functions:",
        "  noise: [{type: symmetric_flip, p: 1.3}]\n  functions:",
        ["small.yaml:7: reward.noise.0.p", "(got 1.3)"],
    ),
    "noise later than a trajectory may be old": (
        "  functions:",
        "  noise: [{type: delay, max_updates: 3}]\n  functions:",
        ["reward.noise: scores may be 3 updates late", "training.max_staleness = 0"],
    ),
    "unknown preset": ("preset: ppo", "preset: ppoo", ["unknown algorithm 'ppoo'", "did you mean 'ppo'?"]),
    "unknown option": ("preset: ppo", "preset: ppo\n  gama: 1", ["small.yaml:11: algorithm.gama", "mean 'gamma'?"]),
    "bad option": ("preset: ppo", "preset: ppo\n  gamma: 2", ["algorithm.gamma", "less than or equal to 1", "2"]),
    "nested option": ("preset: ppo", "preset: dvpo\n  critic: {num_heads: 0}", ["algorithm.critic.num_heads", "0"]),
    "small tail": (
        "preset: ppo",
        "preset: dvpo\n  critic: {num_quantiles: 8}",
        ["small.yaml:9: ", "lower_share"],
    ),
    "preset and type": ("preset: ppo", "preset: ppo\n  type: ppo", ["small.yaml:9: algorithm: give either 'preset"]),
    "no algorithm": ("preset: ppo", "gamma: 1", ["algorithm: give either 'preset: NAME' or 'type: NAME'"]),
    "idle mini-batches": ("preset: ppo", "preset: ppo\n  num_minibatches: 17", ["at least 17 trajectories", "16"]),
    "long prompts": ("max_prompt_tokens: 32", "max_prompt_tokens: 4", ["64 of 64 prompts of split 'train'"]),
    "long responses": ("max_response_tokens: 24", "max_response_tokens: 999", ["1031 tokens", "256 positions"]),
    "too many CPUs": ("rollout:", "rollout:\n  num_workers: 4000", ["needs 2000.5 CPUs", "this machine has"]),
    "no such GPUs": ("cluster:", "cluster:\n  gpus_per_rollout_worker: 0.5", ["needs 0.5 GPUs, this machine has 0"]),
    "large store": ("object_store_mib: 96", "object_store_mib: 9999999", ["cluster.object_store_mib", "/dev/shm"]),
}


@pytest.mark.parametrize(("old", "new", "phrases"), EDITS.values(), ids=EDITS.keys())
def test_mistake_in_the_file(
    old: str, new: str, phrases: list[str], run_file: Path, dvpo: Dvpo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = run_file.read_text()
    assert old in text
    run_file.write_text(text.replace(old, new, 1))
    assert_refused(dvpo("check", "small.yaml"), "error: small.yaml", *phrases)


# arguments after `dvpo check small.yaml`, and phrases of the message
OVERRIDES: dict[str, tuple[list[str], list[str]]] = {
    "no value": (["training.num_steps"], ["--set training.num_steps: must be KEY=VALUE"]),
    "not a path": (["training..num_steps=1"], ["must be KEY=VALUE"]),
    "value not YAML": (["name=[a"], ["--set name=[a: the value is not valid YAML"]),
    "unknown key": (["training.num_step=1"], ["--set training.num_step=1: training.num_step", "mean 'num_steps'?"]),
    "bad value": (["training.num_steps=x"], ["--set training.num_steps=x: training.num_steps", "integer"]),
    "inside a value": (["seed=1", "seed.a=1"], ["--set seed.a=1: seed is 1, so it has no 'a'"]),
    "beyond a list": (["reward.functions.2.weight=1"], ["reward.functions is a list with positions 0 to 0"]),
    "bad option": (["algorithm.clip_ratio_low=x"], ["--set algorithm.clip_ratio_low=x: algorithm.clip_ratio_low"]),
    "no prior mean": (
        ["algorithm=dvpo", "algorithm.critic.prior_mean=.nan"],
        ["algorithm.critic.prior_mean", "finite"],
    ),
    "no prior scale": (["algorithm.critic.prior_scale=.inf"], ["algorithm.critic.prior_scale", "finite number"]),
    "endless bottleneck": (["algorithm=vrpo", "algorithm.ib_coef=.inf"], ["algorithm.ib_coef", "finite number"]),
    "no penalty": (["algorithm=grpo", "algorithm.kl_coef=.nan"], ["algorithm.kl_coef", "finite number"]),
    "endless temperature": (["rollout.sampling.temperature=.inf"], ["rollout.sampling.temperature", "finite number"]),
    "empty stop string": (['rollout.sampling.stop=[""]'], ["rollout.sampling.stop", "a stop string must not be empty"]),
    "one of two is empty": (['rollout.sampling.stop=["###", ""]'], ["sampling.stop", "must not be empty"]),
    "empty and no list": (['rollout.sampling.stop=""'], ["sampling.stop", "must not be empty"]),
    "a number as stop": (["rollout.sampling.stop=[3]"], ["rollout.sampling.stop.0", "string"]),
    "an engine argument with an option": (
        ["rollout.engine_args.max_num_seqs=8", "rollout.engine_args.seed=3"],
        [
            "--set rollout.engine_args.max_num_seqs=8: rollout.engine_args.max_num_seqs: not to be set here: it is ",
            "rollout.engine_args.seed: not to be set here: every start",
        ],
    ),
    "an inexact engine": (
        ["rollout.engine_args={quantization: fp8}"],
        ["engine_args.quantization: would break exact log-probabilities: the learner's gradient is of unrounded"],
    ),
    "uneven shards": (
        ["rollout.tensor_parallel_size=3", "cluster.gpus_per_rollout_worker=3"],
        ["tensor_parallel_size: 3 GPUs cannot share the 2 attention heads", "possible are 1, 2"],
    ),
    "nothing to compare": (
        ["algorithm=ppo", "algorithm.reward_correction=group_filter", "training.samples_per_prompt=1"],
        ["training.samples_per_prompt: algorithm.reward_correction.0 compares the samples", "at least 2 (got 1)"],
    ),
    "no answers": (
        ["algorithm=grpo", "algorithm.reward_correction=relabel", "reward.answer_key=none"],
        ["reward.answer_key: 'none', and algorithm.reward_correction compares the answers"],
    ),
    "no gold labels": (
        ["algorithm=ppo", "algorithm.reward_correction=gold_only"],
        ["reward.gold_labels: missing", "with a gold label only; give it, with a share"],
    ),
    "few prompts": (
        ["algorithm=james-stein", "training.prompts_per_step=2"],
        ["training.prompts_per_step: james-stein compares prompts", "at least 3 in a step (got 2)"],
    ),
    "lone samples": (["algorithm=grpo", "training.samples_per_prompt=1"], ["grpo compares the samples", "(got 1)"]),
}


@pytest.mark.parametrize(("overrides", "phrases"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_mistake_in_an_override(overrides: list[str], phrases: list[str], run_file: Path, dvpo: Dvpo) -> None:
    flags = [part for override in overrides for part in ("--set", override)]
    assert_refused(dvpo("check", run_file, *flags), *phrases)


def test_all_mistakes_are_named_at_once(run_file: Path, dvpo: Dvpo) -> None:
    flags = ["--set", "model.path=./nowhere", "--set", "data.task.type=chian", "--set", "algorithm.gamma=2"]
    result = dvpo("check", run_file, *flags)
    assert_refused(result, "model.path", "data.task.type", "algorithm.gamma")
    assert result.output.count("error: ") == 3


def test_missing_file(run_file: Path, dvpo: Dvpo) -> None:
    assert_refused(dvpo("train", "smal.yaml"), "smal.yaml: no such file; did you mean 'small.yaml'?")
    assert_refused(dvpo("train", "nowhere/small.yaml"), "no such file (nor is there a folder 'nowhere')")
    assert_refused(dvpo("check", run_file.parent), "cannot be read")
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert_refused(dvpo("check", "binary.yaml"), "it is not a UTF-8 text file")


def test_empty_file_lacks_the_model(run_file: Path, dvpo: Dvpo) -> None:
    run_file.write_text("")
    assert_refused(dvpo("check", run_file), "model: required but not given")


class TestModel:
    """Mistakes about the model folder."""

    @pytest.fixture
    def model(self, tiny_model: Path, run_file: Path) -> Path:
        """A copy of the model that a test may spoil."""
        return Path(shutil.copytree(tiny_model, run_file.parent / "model"))

    def refused(self, dvpo: Dvpo, path: str, *phrases: str) -> None:
        assert_refused(dvpo("check", "small.yaml", "--set", f"model.path={path}"), "model.path: ", *phrases)

    def edit(self, model: Path, **changes: object) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | changes))

    def test_no_such_folder(self, model: Path, dvpo: Dvpo) -> None:
        self.refused(dvpo, "./modell", "no such folder: './modell'")
        self.refused(dvpo, str(model.parent / "modell"), "no such folder", "did you mean", "model'?")

    def test_neither_folder_nor_on_the_hub(self, run_file: Path, dvpo: Dvpo) -> None:
        self.refused(dvpo, "models/demo", "neither a folder here", "dvpo warmstart --task NAME --output models/demo")

    def test_a_file(self, run_file: Path, dvpo: Dvpo) -> None:
        self.refused(dvpo, "small.yaml", "is a file; give the folder")

    def test_no_configuration(self, model: Path, dvpo: Dvpo) -> None:
        (model / "config.json").rename(model / "other.json")
        self.refused(dvpo, "model", "has no config.json")

    def test_a_checkpoint_instead_of_its_policy(self, model: Path, dvpo: Dvpo) -> None:
        model.rename(model.parent / "policy")
        Path("step-1").mkdir()
        Path("policy").rename("step-1/policy")
        self.refused(dvpo, "step-1", "has no config.json", "did you mean 'step-1/policy'?")

    def test_no_weights(self, model: Path, dvpo: Dvpo) -> None:
        (model / "model.safetensors").unlink()
        self.refused(dvpo, "model", "has no weights")

    def test_broken_configuration(self, model: Path, dvpo: Dvpo) -> None:
        (model / "config.json").write_text("{")
        self.refused(dvpo, "model", "is not a model configuration")

    def test_narrow_heads(self, model: Path, dvpo: Dvpo) -> None:
        self.edit(model, num_attention_heads=4, num_key_value_heads=4, head_dim=16)
        self.refused(dvpo, "model", "attention heads of 16 dimensions", "at least 32")

    def test_not_a_causal_language_model(self, model: Path, dvpo: Dvpo) -> None:
        self.edit(model, model_type="vit", architectures=["ViTModel"])
        self.refused(dvpo, "model", "of type 'vit'", "not a causal language model")

    def test_no_chat_template(self, model: Path, dvpo: Dvpo) -> None:
        (model / "chat_template.jinja").unlink()
        self.refused(dvpo, "model", "has no chat template")

    def test_vocabulary_too_small(self, model: Path, dvpo: Dvpo) -> None:
        self.edit(model, vocab_size=8)
        self.refused(dvpo, "model", "its model only 8")

    def test_critic_with_another_vocabulary(self, model: Path, dvpo: Dvpo) -> None:
        self.edit(model, vocab_size=8)
        assert_refused(
            dvpo("check", "small.yaml", "--set", "model.critic_path=model"), "model.critic_path: ", "the same"
        )


class TestUserCode:
    """Mistakes in a reward function of the user's own."""

    def refused(self, dvpo: Dvpo, code: str, *phrases: str) -> None:
        name = f"reward_{abs(hash(code))}"  # modules stay imported: each test needs a name of its own
        Path(f"{name}.py").write_text(code)
        flag = f'reward.functions.0.type="{name}:Mine"'
        assert_refused(dvpo("check", "small.yaml", "--set", flag), "reward.functions.0", *phrases)

    def test_raises_when_imported(self, run_file: Path, dvpo: Dvpo) -> None:
        self.refused(dvpo, "import no_such_module_at_all", "ModuleNotFoundError", "no_such_module_at_all")
        self.refused(dvpo, "1 / 0", "ZeroDivisionError")
        self.refused(dvpo, "class Mine(", "SyntaxError")

    def test_is_not_a_reward(self, run_file: Path, dvpo: Dvpo) -> None:
        self.refused(dvpo, "Mine = 3", "is not a subclass of rollout.rewards.base")
        self.refused(dvpo, "class Mine: ...", "is not a subclass of rollout.rewards.base")

    def test_function_with_wrong_parameters(self, run_file: Path, dvpo: Dvpo) -> None:
        self.refused(dvpo, "def Mine(text): return 1.0", "Mine(prompt, trajectory, **options)", "too many positional")
        self.refused(dvpo, "def Mine(p, t, *, scale): return 1.0", "missing a required argument: 'scale'")
        Path("function_fine.py").write_text("def mine(prompt, trajectory, scale=1.0): return scale")
        flags = ["--set", 'reward.functions.0.type="function_fine:mine"']
        assert dvpo("check", "small.yaml", *flags, "--set", "reward.functions.0.scale=2").exit_code == 0
        flags += ["--set", "reward.functions.0.scael=2"]
        assert_refused(dvpo("check", "small.yaml", *flags), "reward.functions.0.scael: unknown key", "'scale'?")

    def test_score_range_upside_down(self, run_file: Path, dvpo: Dvpo) -> None:
        flag = "reward.functions.0.score_range=[1, 0]"
        phrases = ("reward.functions.0.score_range", "must be [lowest, highest], got [1, 0]")
        assert_refused(dvpo("check", "small.yaml", "--set", flag), *phrases)

    def test_remote_without_its_token(self, run_file: Path, dvpo: Dvpo) -> None:
        remote = 'reward.functions.0={type: remote, url: "http://127.0.0.1:1/", token_env: NO_SUCH_TOKEN_IN_TESTS}'
        phrases = ("reward.functions.0: token_env", "NO_SUCH_TOKEN_IN_TESTS is not set")
        assert_refused(dvpo("check", "small.yaml", "--set", remote), *phrases)

    def test_option_that_it_does_not_have(self, run_file: Path, dvpo: Dvpo) -> None:
        lines = (
            "from rollout.rewards.base import Reward",
            "class Mine(Reward):",
            "    async def __call__(self, p, t): ...",
        )
        Path("reward_fine.py").write_text("\n".join(lines))
        flags = ["--set", 'reward.functions.0.type="reward_fine:Mine"']
        assert dvpo("check", "small.yaml", *flags).exit_code == 0
        flags += ["--set", "reward.functions.0.wait=1"]
        assert_refused(dvpo("check", "small.yaml", *flags), "reward.functions.0.wait: unknown key", "'weight'?")


class TestRunFolder:
    """Mistakes about where a run is written or goes on from."""

    def test_taken(self, run_file: Path, dvpo: Dvpo) -> None:
        Path("runs/small").mkdir(parents=True)
        Path("runs/small/metrics.jsonl").write_text("")
        assert_refused(dvpo("train", run_file), "name: ", "already holds a run", "--resume", "--overwrite")
        assert Path("runs/small/metrics.jsonl").exists()

    def test_a_file_is_in_the_way(self, run_file: Path, dvpo: Dvpo) -> None:
        Path("runs").write_text("")
        assert_refused(dvpo("train", run_file), "output_dir: ", "is a file")

    def test_no_such_checkpoint(self, run_file: Path, dvpo: Dvpo) -> None:
        assert_refused(dvpo("train", run_file, "--resume", "runs/small/checkpoints/step-9"), "--resume: no such")

    def test_resume_and_overwrite(self, run_file: Path, dvpo: Dvpo) -> None:
        assert_refused(dvpo("train", run_file, "--resume", "auto", "--overwrite"), "--overwrite: deletes what --resume")

    def test_schema_to_nowhere(self, run_file: Path, dvpo: Dvpo) -> None:
        assert_refused(dvpo("schema", "--output", "nowhere/schema.json"), "--output: cannot write nowhere/schema.json")


class TestEval:
    """Mistakes of `dvpo eval`."""

    def test_no_such_checkpoint(self, run_file: Path, dvpo: Dvpo) -> None:
        assert_refused(dvpo("eval", "step-9", "--config", run_file), "CHECKPOINT: step-9: no such folder")
        Path("step-9").mkdir()
        assert_refused(dvpo("eval", "step-9", "--config", run_file), "neither policy/config.json nor config.json")

    def test_no_such_split(self, run_file: Path, tiny_model: Path, dvpo: Dvpo) -> None:
        result = dvpo("eval", tiny_model, "--config", run_file, "--split", "tset")
        assert_refused(result, "--split: unknown split 'tset'; did you mean 'test'?")


class TestCommandLine:
    """Mistakes that click itself sees."""

    def test_unknown_command_and_option(self, dvpo: Dvpo) -> None:
        assert_refused(dvpo("trian", "small.yaml"), "No such command 'trian'")
        assert_refused(dvpo("train"), "Missing argument 'CONFIG'")
        assert_refused(dvpo("train", "small.yaml", "--sett", "a=1"), "No such option")

    def test_warmstart_of_an_unknown_task(self, dvpo: Dvpo) -> None:
        assert_refused(dvpo("warmstart", "--task", "chian"), "--task.type: unknown name 'chian'", "'chain'?")


def test_the_real_process_says_the_same(run_file: Path) -> None:
    """Standard error, exit status 2, and no traceback also outside click's test runner."""
    run_file.write_text(run_file.read_text().replace("num_steps: 2", "num_steps: two"))
    command = [sys.executable, "-m", "cluster.cli", "train", str(run_file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {run_file}:15: training.num_steps: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("on_bad_row", "frac", "status"), [("error", None, 2), ("reject", 0.5, 0), ("reject", 0.1, 2)])
def test_a_chat_template_that_refuses_rows(
    on_bad_row: str, frac: float | None, status: int, run_file: Path, tiny_model: Path, dvpo: Dvpo
) -> None:
    folder = run_file.parent
    shutil.copytree(tiny_model, folder / "model")
    (folder / "model" / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}"
        + (tiny_model / "chat_template.jinja").read_text()
    )
    system = '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1"}], "answer": "2"}\n'
    (folder / "q.jsonl").write_text('{"prompt": "1+2", "answer": "3"}\n' * 3 + system)
    task: dict[str, object] = {"type": "dataset", "train": "q.jsonl", "eval": {"t": "q.jsonl"}}
    if frac is not None:
        task |= {"on_bad_row": on_bad_row, "rejects": "bad.jsonl.txt", "max_reject_frac": frac}
    shown = dvpo("check", run_file, "--set", "model.path=model", "--set", f"data.task={json.dumps(task)}")
    assert shown.exit_code == status, shown.output
    assert "Traceback" not in shown.output
    assert "q.jsonl:4" in shown.output or status == 0
    if on_bad_row == "error":
        assert "error: --set model.path=model: model.path: the chat template of 'model' refuses 1 of 4" in shown.output
    if status == 2:
        assert "says: no system messages here" in shown.output

"""What every test shares: one thread a process, no network, no leftovers; a tiny language model; a private Ray."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported anywhere: spinning thread pools on shared cores cost far more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>")
CHARACTERS = "0123456789+-*/=() abcdefghijklmnopqrstuvwxyz?.,:\n;<>_[]"
CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


WHAT_RANKS_LOAD = (
    "torch",
    "deepspeed",
    "transformers.models.auto.modeling_auto",
    "learner.update.learner",
    "rollout.scoring.service",
)
SHARED_PROCESSES = {
    "test_checkpoint_saving": "learner_ranks",
    "test_learner_ranks": "learner_ranks",
    "test_learner_ranks_critics": "learner_ranks",
    "test_learner_memory": "learner_ranks",
    "test_learner_refusals": "learner_ranks",
    "test_presets": "shared_run",
    "test_trust": "shared_run",
    "test_walk": "shared_run",
}
"""Files whose tests use the same long-lived processes, by the name of what they share."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n` a file's tests, and those that share processes, are dealt to one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForSharedProcesses(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return SHARED_PROCESSES.get(Path(file).stem, file)

    return OneWorkerForSharedProcesses(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first, so that short ones fill the gaps; without those that need a GPU where there is none."""
    items.sort(key=lambda item: "integration" not in item.path.parts)
    skip_gpu_tests(items)


def skip_gpu_tests(items: list[pytest.Item]) -> None:
    """Where there is no GPU; REQUIRE_GPU=1 turns the skip into a failure."""
    marked = [item for item in items if item.get_closest_marker("gpu") is not None]
    if not marked or os.environ.get("REQUIRE_GPU") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 model in Hugging Face format: hidden 64, 2 layers, 2 heads of 32, one token per character."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("tiny_model")
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,  # far from uniform, so that mistakes show in the log-probabilities
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=vocabulary["<bos>"],
        eos_token_id=vocabulary["<eos>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A private Ray on this machine with 4 logical CPUs, whose workers can import this checkout; gone at the end.

    Workers are forked from a process that has loaded what learner ranks need, as in a run: most of what the tests of
    ranks took was loading DeepSpeed, once for each rank.
    """
    import ray

    from cluster.preload.lean_ray import lean_ray
    from cluster.preload.preload import Preload

    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    folder = Path(tempfile.mkdtemp(prefix="dvpo-tests-"))  # not of pytest's: the path of a socket in it has to be short
    preload = Preload(folder, environment, WHAT_RANKS_LOAD)
    with lean_ray():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=300 * 1024 * 1024,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"env_vars": environment, "py_executable": preload.executable},
        )
    yield
    ray.shutdown()
    preload.close()
    shutil.rmtree(folder)

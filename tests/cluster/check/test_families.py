"""Kinds of models that cannot be trained are refused by name, with the reason; the others are not."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from benchmarks.zoo.families import BASE, ZOO, Member
from cluster.check.families import require_reachable
from rollout.component import UserError

REFUSED = {
    "gpt-oss": "experts and attention sinks",
    "DeepSeek-V3": "latent attention",
    "Gemma 3, images": "text-only model",
    "Qwen3, biases": "bias of the attention's output",
    "Qwen3-MoE, biases": "bias of the attention's output",
    "Gemma 2": "tie_word_embeddings: false",
}
IN_FLOAT32_ON_CPUS = {"Qwen3-Next", "Qwen3.5, text", "Qwen3.5-MoE, text", "Qwen3.5, images"}


def config_of(member: Member) -> Any:
    text = {key: value for key, value in (BASE | member.shape).items() if key not in member.without}
    if member.vision is None:
        return AutoConfig.for_model(member.kind, **text)
    return AutoConfig.for_model(member.kind, text_config=text, vision_config=member.vision)


@pytest.mark.parametrize("member", ZOO, ids=[member.name for member in ZOO])
def test_who_is_refused(member: Member) -> None:
    config = config_of(member)
    if member.name in REFUSED:
        with pytest.raises(
            UserError, match=rf"model.path: 'm' is of type '{config.model_type}'.*{REFUSED[member.name]}"
        ):
            require_reachable(config, "m", "bfloat16", on_gpu=True)
        return
    require_reachable(config, "m", "float32", on_gpu=True)
    require_reachable(config, "m", "bfloat16", on_gpu=False)
    if member.name in IN_FLOAT32_ON_CPUS:
        with pytest.raises(UserError, match=r"linear attention.*set rollout.dtype: bfloat16"):
            require_reachable(config, "m", "float32", on_gpu=False)
    else:
        require_reachable(config, "m", "float32", on_gpu=False)

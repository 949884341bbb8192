"""Chat templates of several families on one character tokenizer, for tests of conversations."""

from __future__ import annotations

from typing import Any

from cluster.warmstart.warmstart import CHAT_TEMPLATE as WARMSTART
from tests.conftest import CHAT_TEMPLATE as TINY

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (  # a space before the end, and turns have to alternate
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }} </s>{% endif %}"
    "{% endfor %}"
)
THINKING = (  # in the manner of Qwen3: only the last response keeps its thoughts
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' and loop.index0 < ns.last %}{% set text = text.split('</think>')[-1] %}{% endif %}"
    "{% if m['role'] == 'assistant' and loop.index0 > ns.last and '</think>' not in text %}"
    "{% set text = '<think>\n\n</think>\n\n' + text %}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (  # no end of a turn at all
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
END_OF_TURN = {
    "tiny": "<eos>",
    "warmstart": "<|end|>",
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama2": "</s>",
    "thinking": "<|im_end|>",
    "plain": "<eos>",
}
TEMPLATES = {
    "tiny": TINY,
    "warmstart": WARMSTART,
    "chatml": CHATML,
    "llama3": LLAMA3,
    "llama2": LLAMA2,
    "thinking": THINKING,
    "plain": PLAIN,
}
SPECIAL: tuple[str, ...] = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>")
SPECIAL += ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>")
SPECIAL += ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def tokenizer_with(template: str, eos_token: str) -> Any:
    """One token a character, all special tokens of the templates above."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(code) for code in (10, *range(32, 127))]
    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*SPECIAL, *characters])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=eos_token,
        additional_special_tokens=[token for token in SPECIAL if token not in ("<pad>", "<unk>", eos_token)],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def named(name: str) -> Any:
    """The tokenizer of one of the templates."""
    return tokenizer_with(TEMPLATES[name], END_OF_TURN[name])

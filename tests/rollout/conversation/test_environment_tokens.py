"""Tokens between responses: what a chat template writes there, whatever came before."""

from __future__ import annotations

import pytest

from rollout.component import UserError
from rollout.conversation.conversation import ChatTokens
from rollout.trajectory import Message
from tests.rollout.chat_templates import END_OF_TURN, TEMPLATES, named, tokenizer_with

PROMPT: list[Message] = [{"role": "user", "content": "What is 2+2?"}]
TURNS = (("It is 5.", "No, try again."), ("Then 4.", "Right. And 3+3?"), ("6", "Yes."))
RENDERED_AS_SAMPLED = ("tiny", "warmstart", "chatml", "llama3", "thinking")


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("name", RENDERED_AS_SAMPLED)
def test_turns_that_end_normally_are_as_the_whole_conversation_rendered(name: str) -> None:
    """Sampled text and its end-of-turn token, then the tokens in between: in sum what the template makes of it all."""
    tokenizer = named(name)
    chat, end = ChatTokens(tokenizer), tokenizer.convert_tokens_to_ids(END_OF_TURN[name])
    messages, ids = list(PROMPT), list(chat.opening(PROMPT))
    for said, reply in TURNS:
        sampled = [*tokenizer(said, add_special_tokens=False)["input_ids"], end]
        ids += [*sampled, *chat.between(sampled, [user(reply)])]
        messages += [assistant(said), user(reply)]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(ids) == text
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", RENDERED_AS_SAMPLED)
def test_a_turn_that_was_cut_gets_its_missing_end(name: str) -> None:
    tokenizer = named(name)
    chat, end = ChatTokens(tokenizer), tokenizer.convert_tokens_to_ids(END_OF_TURN[name])
    cut = tokenizer("It is", add_special_tokens=False)["input_ids"]
    between = chat.between(cut, [user("Go on.")])
    assert between == (end, *chat.between([*cut, end], [user("Go on.")]))
    whole = tokenizer.apply_chat_template([*PROMPT, assistant("It is"), user("Go on.")], add_generation_prompt=True)
    assert [*chat.opening(PROMPT), *cut, *between] == list(getattr(whole, "input_ids", whole))


def test_a_turn_that_ends_in_what_follows_the_end_is_cut_all_the_same() -> None:
    """ChatML writes a newline after the end of a turn; a response that stops at a newline has not ended."""
    tokenizer = named("chatml")
    sampled = tokenizer("It is\n", add_special_tokens=False)["input_ids"]
    between = tokenizer.decode(list(ChatTokens(tokenizer).between(sampled, [user("What?")])))
    assert between == "<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_only_the_part_of_the_end_that_is_missing_is_added() -> None:
    """Llama 2 writes a space before its end token, which the policy need not sample."""
    tokenizer = named("llama2")
    chat, end = ChatTokens(tokenizer), tokenizer.convert_tokens_to_ids("</s>")
    ended = tokenizer("4", add_special_tokens=False)["input_ids"] + [end]
    assert tokenizer.decode(list(chat.between(ended, [user("Why?")]))) == "<s>[INST] Why? [/INST]"
    assert tokenizer.decode(list(chat.between(ended[:-1], [user("Why?")]))) == " </s><s>[INST] Why? [/INST]"


def test_a_template_without_ends_keeps_what_was_sampled() -> None:
    tokenizer = named("plain")
    sampled = tokenizer("4", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    assert tokenizer.decode(list(ChatTokens(tokenizer).between(sampled, [user("Why?")]))) == "\nuser: Why?\nassistant:"


def test_thoughts_stay_where_the_template_would_strip_them() -> None:
    """The template renders an earlier turn without its thoughts; sampled tokens are never touched."""
    tokenizer = named("thinking")
    chat, end = ChatTokens(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>")
    said = "<think>hard</think>4"
    sampled = [*tokenizer(said, add_special_tokens=False)["input_ids"], end]
    ids = [*chat.opening(PROMPT), *sampled, *chat.between(sampled, [user("Why?")])]
    text = tokenizer.decode(ids)
    assert "<think>hard</think>4<|im_end|>\n<|im_start|>user\nWhy?" in text
    stripped = tokenizer.apply_chat_template(
        [*PROMPT, assistant(said), user("Why?")], tokenize=False, add_generation_prompt=True
    )
    assert text.replace("<think>hard</think>", "") == stripped


def test_several_messages_at_once_and_a_tool() -> None:
    tokenizer = named("chatml")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    between = ChatTokens(tokenizer).between([end], [{"role": "tool", "content": "7"}, user("So?")])
    assert tokenizer.decode(list(between)) == (
        "\n<|im_start|>tool\n7<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_usable_templates_pass_the_check(name: str) -> None:
    ChatTokens(named(name)).check()


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if messages | length > 1 %}{{ raise_exception('one question only') }}{% endif %}x", "one question only"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "write every response once and as it is"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "once and as it is"),
        ("{% for m in messages | reverse %}{{ m['content'] }}\n{% endfor %}", "what is said to it after it"),
    ],
)
def test_templates_that_cannot_be_used_turn_by_turn_are_refused(template: str, reason: str) -> None:
    with pytest.raises(UserError, match=r"model\.path: the chat template") as refused:
        ChatTokens(tokenizer_with(template, "<eos>")).check()
    assert reason in str(refused.value)

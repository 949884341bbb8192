"""A model's chat template, tried on one question: does it get through, and is it the model's turn after?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = "dvpo asks this question"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What a template makes of one question.

    Attributes:
        num_questions: how often the question is in the prompt; 1 is right.
        opens_turn: whether something follows the question, such as a mark of the assistant's turn.
        error: why it could not be tried; empty if it could.
    """

    num_questions: int = 1
    opens_turn: bool = True
    error: str = ""


def read_chat_template(model: Any) -> ChatTemplate | None:
    """Try the template of a model's folder; None where there is no such folder or no template in it."""
    if not isinstance(model, str) or not Path(model).is_dir():
        return None
    text = _template(Path(model))
    return try_template(text) if text else None


def _template(folder: Path) -> str:
    try:
        if (folder / "chat_template.jinja").is_file():
            return (folder / "chat_template.jinja").read_text(encoding="utf-8")
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""


def try_template(text: str) -> ChatTemplate:
    """Render a template as a run does, for one user message and the assistant's turn."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    # As transformers renders them: https://huggingface.co/docs/transformers/chat_templating
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: form
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    special = {"bos_token": "", "eos_token": "", "tools": None}
    try:
        template = environment.from_string(text)
        messages = [{"role": "user", "content": PROBE}]
        prompt = template.render(messages=messages, add_generation_prompt=True, **special)
    except Exception as error:  # whatever a template of somebody else's may raise
        return ChatTemplate(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    return ChatTemplate(prompt.count(PROBE), bool(prompt.rpartition(PROBE)[2].strip()))

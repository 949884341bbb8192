"""A reward model: a Hugging Face sequence-classification model with one label, and the tokenizer it reads with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rollout.trajectory import Message

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]


class TooLong(ValueError):
    """A conversation has more tokens than the model may read."""


class NotARewardModel(ValueError):
    """A model's configuration is not that of a classifier with one label."""


class RewardModel:
    """Scores conversations. Evaluation mode always, in training too: without dropout, a score is a score.

    Args:
        model: of transformers, with one label; its configuration gets the tokenizer's padding token if it has none.
        tokenizer: has a chat template.
        max_tokens: longest conversation.

    Raises:
        NotARewardModel: there is no padding token, by which the model finds the end of each conversation.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        if model.config.pad_token_id is None:
            raise NotARewardModel("neither the model nor its tokenizer has a padding token; set pad_token_id")
        model.eval()

    @classmethod
    def load(cls, path: str, max_tokens: int, dtype: Dtype = "float32", device: Device = "cpu") -> RewardModel:
        """A finished reward model.

        Raises:
            NotARewardModel: the folder holds something else.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        require_reward_model(AutoConfig.from_pretrained(path))
        model = AutoModelForSequenceClassification.from_pretrained(path, dtype=getattr(torch, dtype)).to(device)
        return cls(model, AutoTokenizer.from_pretrained(path), max_tokens)

    @classmethod
    def start_from(cls, path: str, max_tokens: int, seed: int, device: Device = "cpu") -> RewardModel:
        """A reward model to be trained, in float32: a finished one, or any model's body under a new random head."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.manual_seed(seed)  # of the new head
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=torch.float32).to(device)
        return cls(model, AutoTokenizer.from_pretrained(path), max_tokens)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation that ends with the response to be scored.

        Raises:
            TooLong: there are more than ``max_tokens``.
        """
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False)
        row: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(row) > self.max_tokens:
            raise TooLong(f"the conversation has {len(row)} tokens, more than {self.max_tokens}")
        return row

    def logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The model's scores of encoded conversations, [n] float32; carries the gradient. Padded on the right."""
        pad = self.model.config.pad_token_id
        length = max(map(len, rows))
        input_ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        device = self.model.device
        output = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device))
        scores: Tensor = output.logits[:, 0].float()
        return scores

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The scores as numbers."""
        with torch.inference_mode():
            return [float(score) for score in self.logits(rows).cpu()]

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as a normal Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def require_reward_model(config: Any) -> None:
    """Check a model's configuration.

    Raises:
        NotARewardModel: it is not that of a sequence-classification model with one label.
    """
    kinds = list(getattr(config, "architectures", None) or [])
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise NotARewardModel(
            f"it holds a {', '.join(kinds) or 'model without a head'}, not a ...ForSequenceClassification; "
            "`dvpo reward-model train` makes one from it"
        )
    if config.num_labels != 1:
        raise NotARewardModel(f"its classifier has {config.num_labels} labels; a reward model has one")

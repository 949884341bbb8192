"""Rows of a batch run through a transformer one after another in one sequence, without padding between them.

Each row attends to itself only and its positions start at 0, so it gets what it would get alone. Everything that works
token by token, which is nearly all of the arithmetic, then sees no padding. Attention is called through the registry of
transformers: flash-attention's variable-length kernel where that is installed and the numbers are of 16 bits, elsewhere
rows of about one length are laid out side by side for PyTorch's attention, block by block, and only there padded to the
longest of their block. (One mask over the whole sequence, which transformers makes of restarting positions, costs the
square of its length; FlexAttention has no backward pass on a CPU.)
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_flash_attention_utils import _flash_attention_forward
from transformers.utils import is_flash_attn_2_available

from learner.maths.logprobs import states_of_actions
from learner.maths.row_blocks import Block, cut_into_blocks
from learner.models.split_weights import whole_while_used

IMPLEMENTATION = "dvpo_packed_rows"
"""The name under which transformers finds :func:`packed_attention`."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest relative distance of a hidden state from that of the row alone, when a model is tried."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Where each row of a padded batch lies when the rows stand one after another.

    Attributes:
        token_ids: [1 n], the real tokens.
        position_ids: [1 n], from 0 in each row.
        bounds: [batch + 1] int32, where rows start, and the end.
        longest: tokens of the longest row.
        is_real: [batch seq] bool.
    """

    token_ids: Tensor
    position_ids: Tensor
    bounds: Tensor
    longest: int
    is_real: Tensor

    @classmethod
    def of(cls, token_ids: Tensor, lengths: Tensor) -> Self:
        """Drop the padding of [batch seq] right-padded tokens; ``lengths`` [batch], each at least 1."""
        position = torch.arange(token_ids.shape[1], device=token_ids.device).expand(token_ids.shape)
        is_real = position < lengths[:, None]
        bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=token_ids.device)
        bounds[1:] = lengths.cumsum(0)
        return cls(
            token_ids=token_ids[is_real][None],
            position_ids=position[is_real][None],
            bounds=bounds,
            longest=int(lengths.max()),
            is_real=is_real,
        )

    def note(self) -> None:
        """Called by each layer's attention."""

    @cached_property
    def blocks(self) -> list[Block]:
        """Neighbouring rows that attention takes together."""
        lengths = self.bounds.diff().tolist()
        ends = cut_into_blocks(lengths)
        return [Block.of(lengths[a:b], self.bounds.device) for a, b in itertools.pairwise([0, *ends])]

    def split(self, x: Tensor) -> list[Tensor]:
        """[1 head n dim] -> [rows head longest dim] of each block."""
        blocks = self.blocks
        if len(blocks) == 1:
            return [blocks[0].side_by_side(x)]
        parts = x.split([block.num_tokens for block in blocks], dim=2)  # one backward pass for all, unlike slices
        return [block.side_by_side(part) for block, part in zip(blocks, parts, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """[rows longest head dim] of each block -> [1 n head dim]."""
        tokens = [block.one_after_another(x) for block, x in zip(self.blocks, parts, strict=True)]
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens, dim=1)


@dataclass(frozen=True, kw_only=True)
class _CountedRows(PackedRows):
    """Rows that know how often a layer attended over them."""

    attended: list[None] = field(default_factory=list)

    def note(self) -> None:
        self.attended.append(None)


@dataclass(frozen=True)
class RowOutputs:
    """What a causal model returned for each token of a padded batch.

    Attributes:
        values: [batch seq dim], or where the rows were packed [n dim].
        rows: how they were packed, or None.
    """

    values: Tensor
    rows: PackedRows | None = None

    def before(self, mask: Tensor) -> Tensor:
        """Outputs just before each marked token, [batch seq] bool -> [m dim], row-major.

        Raises:
            ValueError: the first token of a row is marked.
        """
        if self.rows is None:
            return states_of_actions(self.values, mask)
        return self.values.index_select(0, states_of_actions(self._numbers, mask))

    def at(self, positions: Tensor) -> Tensor:
        """The output at one position of each row, [batch] -> [batch dim]."""
        if self.rows is None:
            return self.values[torch.arange(len(positions), device=positions.device), positions]
        return self.values.index_select(0, self.rows.bounds[:-1] + positions)

    @property
    def _numbers(self) -> Tensor:
        """[batch seq], the number of each real token in :attr:`values`."""
        assert self.rows is not None
        real = self.rows.is_real
        return real.flatten().cumsum(0).sub(1).reshape(real.shape)


def last_hidden(body: Any, token_ids: Tensor, rows: PackedRows | None) -> RowOutputs:
    """The last hidden states of a transformer, of padded or packed rows."""
    if rows is None:
        return RowOutputs(body(input_ids=token_ids, use_cache=False).last_hidden_state)
    return RowOutputs(body(**inputs_of(rows)).last_hidden_state[0], rows)


def inputs_of(rows: PackedRows) -> dict[str, Any]:
    """Arguments with which a transformer runs packed rows."""
    return {
        "input_ids": rows.token_ids,
        "position_ids": rows.position_ids,
        "use_cache": False,
        "packed_rows": rows,
    }


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_rows: PackedRows | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each row, for the registry of transformers; [1 head n dim] -> [1 n head dim].

    Without ``packed_rows`` it is PyTorch's attention over padded rows.
    """
    if packed_rows is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
        return output, None
    packed_rows.note()
    if uses_flash(query):
        return flash_attention(query, key, value, packed_rows, dropout, scaling), None
    blocks = zip(*(packed_rows.split(x) for x in (query, key, value)), strict=True)
    outputs = [sdpa_attention_forward(module, *qkv, None, dropout, scaling, is_causal=True)[0] for qkv in blocks]
    return packed_rows.join(outputs), None


def uses_flash(query: Tensor) -> bool:
    """Whether flash-attention takes such numbers, and is there."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and is_flash_attn_2_available()


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, dropout: float, scaling: float | None
) -> Tensor:
    """The kernel for rows of different lengths, [1 head n dim] -> [1 n head dim]."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    output: Tensor = _flash_attention_forward(
        q,
        k,
        v,
        None,
        query_length=q.shape[1],
        is_causal=True,
        dropout=dropout,
        softmax_scale=scaling,
        cu_seq_lens_q=rows.bounds,
        cu_seq_lens_k=rows.bounds,
        max_length_q=rows.longest,
        max_length_k=rows.longest,
        attn_implementation="flash_attention_2",
    )
    return output


AttentionInterface.register(IMPLEMENTATION, packed_attention)


def attention_width(model: PreTrainedModel) -> int:
    """Channels over all layers, what attention to one token costs in products of two numbers."""
    facts = model.config.get_text_config()
    return int(facts.num_hidden_layers * facts.hidden_size)


def prepare(model: PreTrainedModel) -> bool:
    """Make a transformer able to run packed rows, if it gives the same numbers as row by row; else say why it is not.

    Args:
        model: whose ``base_model`` is run with :func:`last_hidden`. Without packed rows it computes what it did.
    """
    before = model.config._attn_implementation
    reason = _state_beyond_rows(model)
    if not reason and before != IMPLEMENTATION:
        reason = _try(model, before)
        if reason:
            model.set_attn_implementation(before)
    if reason:
        _say_once(f"model.pack_rows: {type(model).__name__} {reason}; its rows are padded to one length instead")
    return not reason


def _state_beyond_rows(model: PreTrainedModel) -> str:
    """What of a configuration says that a token looks at others in another way than by full causal attention."""
    facts = model.config.get_text_config().to_dict()
    kinds = sorted(set(facts.get("layer_types") or ()) - {"full_attention"})
    if kinds:
        return f"has layers of {' and '.join(kinds)}"
    if facts.get("sliding_window") is not None and facts.get("use_sliding_window", True):
        return f"attends to a window of {facts['sliding_window']} tokens"
    return ""


@torch.no_grad()
def _try(model: PreTrainedModel, before: str) -> str:
    """Run three short rows padded and packed; what goes wrong, or an empty string."""
    lengths = torch.tensor([5, 3, 7], device=model.device)
    num_words = model.config.get_text_config().vocab_size
    ids = (torch.arange(21, device=model.device).reshape(3, 7) * 7 + 3) % num_words
    training = model.training
    model.eval()
    try:
        rows = _CountedRows.of(ids, lengths)
        with whole_while_used(model):
            alone = last_hidden(model.base_model, ids, None).values
            model.set_attn_implementation(IMPLEMENTATION)
            found = last_hidden(model.base_model, ids, rows).values
        expected = alone[rows.is_real].float()
        if found.shape != expected.shape:
            return f"gave states of shape {list(found.shape)} for packed rows, not {list(expected.shape)}"
        gap = (found.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError, IndexError, KeyError) as error:
        return f"does not take packed rows ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]})"
    finally:
        model.train(training)
    num_layers = model.config.get_text_config().num_hidden_layers
    if len(rows.attended) != num_layers:
        return f"mixes tokens by attention over packed rows in {len(rows.attended)} of its {num_layers} layers"
    if not float(gap.max()) <= TOLERANCE.get(model.dtype, 5e-2):  # NaN too
        return f"gives other numbers for packed rows (off by up to {float(gap.max()):.2g} of their size)"
    return ""


@cache
def _say_once(message: str) -> None:
    """Warn, once in a process, and with several ranks on the first of them only."""
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        log.warning(message)

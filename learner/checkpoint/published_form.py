"""A policy's weights under the names, and cut as, in the files that it was loaded from.

What transformers loads is often not what the files hold: experts are stacked into one tensor, the text part of a model
that also sees images loses a prefix, layers get other names. Whoever else reads such files (vLLM, say) knows the files'
names, so weights that leave the learner go back to them, by transformers' own conversion run backwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, revert_weight_conversion

from learner.models.lora.merge import merge, merged_by, merged_name
from learner.models.policy import PolicyModel

PREFIX = "lm."
"""Of all names in a :class:`PolicyModel`."""


class PublishedForm:
    """A :class:`learner.engine.engine.WeightForm`: in are weights of a policy, out are those of its model's files.

    A tied LM head is not listed beside the embedding it shares.
    """

    def __init__(self, policy: PolicyModel) -> None:
        self._lm = policy.lm
        conversions = getattr(self._lm, "_weight_conversions", None)
        if conversions is None:  # made from a configuration, not loaded
            conversions = get_model_conversion_mapping(self._lm, add_legacy=False)
        # One tensor of the files is several of the model: they have to be together when it is put together again.
        self._joining: list[Any] = [
            conversion.reverse_transform()
            for conversion in conversions
            if isinstance(conversion, WeightConverter) and len(conversion.target_patterns) > 1
        ]

    def group_of(self, name: str) -> str:
        """Weights of the same group are to be converted in one call."""
        for joining in self._joining:
            renamed, pattern = joining.rename_source_key(name.removeprefix(PREFIX))
            if pattern is not None:
                return str(renamed)
        return name

    def __call__(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert whole groups; of tensors without data (on the device ``meta``) names and shapes alone.

        What need not be cut or joined is returned as it is, not copied; everything is contiguous.
        """
        inside = {name.removeprefix(PREFIX): weight for name, weight in weights.items()}
        outside: dict[str, Tensor] = revert_weight_conversion(self._lm, inside)
        return {name: weight.contiguous() for name, weight in outside.items()}

    @torch.no_grad()
    def buffers(self) -> dict[str, Tensor]:
        """What the files hold and no optimiser trains, such as the bias of a router, in the files' form."""
        saved = self._lm.state_dict().keys()
        found = {name: buffer.detach() for name, buffer in self._lm.named_buffers() if name in saved}
        return self(found) if found else {}


class MergedForm:
    """A :class:`learner.engine.engine.WeightForm`: adapters are merged, and what comes of it takes another form.

    Args:
        outer: of an ordinary model's weights.
        scale: of the adapters' product.
        in_float32: leave merged weights unrounded, whatever the model's number format.
    """

    def __init__(self, outer: PublishedForm, scale: float, in_float32: bool) -> None:
        self._outer, self._scale, self._in_float32 = outer, scale, in_float32

    def group_of(self, name: str) -> str:
        """A frozen weight and its adapter are to be converted in one call, with all that belongs to their weight."""
        return self._outer.group_of(merged_name(name))

    def __call__(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Merge, then convert. What is given is not written to."""
        return self._outer(dict(merged_by(weights.items(), self._merged)))

    def buffers(self) -> dict[str, Tensor]:
        """See :meth:`PublishedForm.buffers`."""
        return self._outer.buffers()

    def _merged(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return merge(weight.float() if self._in_float32 else weight, a, b, self._scale)

"""Weights on their way into a running vLLM engine: a file in memory, checked and loaded inside the engine's process.

torch and vLLM are imported inside methods: vLLM's worker processes import this module for
:class:`WeightLoaderExtension` before their own set-up is done.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from rollout.sampling.weight_check import TensorFact, checksum, differences

if TYPE_CHECKING:
    import torch

SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64"}


class SharedWeights:
    """Numpy arrays as a safetensors file that the engine's process can map.

    On Linux the file is anonymous memory (``memfd_create``) that other processes of the same user open through
    ``/proc``: nothing is left if this process is killed, and the size of ``/dev/shm`` is no limit. Elsewhere it is a
    temporary file.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._is_anonymous = hasattr(os, "memfd_create")
        if self._is_anonymous:
            descriptor = os.memfd_create("dvpo-weights")
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            descriptor, self.path = tempfile.mkstemp(prefix="dvpo-weights-", suffix=".safetensors")
        self._file = os.fdopen(descriptor, "wb")
        try:
            _write_safetensors(self._file, weights)
            self._file.flush()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the memory back, once no process maps it any more."""
        self._file.close()
        if not self._is_anonymous:
            os.unlink(self.path)


def _write_safetensors(file: BinaryIO, weights: Mapping[str, np.ndarray]) -> None:
    """Write the safetensors format in place; the library's own writer renames a second file, or doubles the memory."""
    header, end = {}, 0
    for name, array in weights.items():
        begin, end = end, end + array.nbytes
        dtype = SAFETENSORS_DTYPES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for array in weights.values():
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


class WeightLoaderExtension:
    """Mixed into vLLM's worker class: replaces the weights of a running engine from a safetensors file."""

    def load_weights_from_file(self, path: str, expected: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Check every tensor of ``path``, and if all are as expected reload the model from them.

        Args:
            path: safetensors file; the tensors that are checked are the ones that are loaded.
            expected: fields of a :class:`TensorFact` by name.

        Returns:
            ``refused``: what differs; nothing was loaded if there is anything.
            ``not_loaded``: parameters that the model's own loader has left out.
            ``check_s``: seconds that the check took.
        """
        begin = time.perf_counter()
        facts = {name: TensorFact(tuple(shape), dtype, crc) for name, (shape, dtype, crc) in expected.items()}
        try:
            tensors = _map_tensors(path)
        except Exception as error:  # whatever the reader does not like
            return _result([f"the tensors cannot be read: {error}"], begin)
        # A checksum costs a pass over all bytes, so it is only taken where the sender took one.
        summed = {name for name, fact in facts.items() if fact.checksum is not None}
        found = ((name, _fact(tensor, name in summed)) for name, tensor in tensors.items())
        refused = differences(facts, found)
        result = _result(refused, begin)
        return result if refused else {**result, "not_loaded": self._load(tensors)}

    def _load(self, weights: dict[str, torch.Tensor]) -> list[str]:
        """Reload the model; returns tensors that were not read, and parameters that the model's loader did not fill.

        vLLM's layer-wise reload is used because the CPU back end repacks weights after loading and frees the
        originals, so copying into the parameters is not possible. It only warns of parameters that are left out.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        parameters = {name for name, _ in model.named_parameters()}
        loader, unread = model.load_weights, set(weights)
        filled: set[str] | None = None
        untouched: set[str] = set()

        def tensors() -> Iterator[tuple[str, torch.Tensor]]:
            for name, tensor in weights.items():
                unread.discard(name)
                yield name, tensor

        def load(iterator: Iterable[tuple[str, torch.Tensor]]) -> set[str] | None:
            nonlocal filled, untouched
            filled = loader(iterator)
            untouched = _untouched(model)
            return filled

        kernels = _forget_packed_experts(model)
        # Only the model's own loader knows which parameters it filled (several tensors may go into one), so it is
        # listened to while vLLM drives it.
        model.load_weights = load
        try:
            self.reload_weights(weights_iterator=tensors())  # type: ignore[attr-defined]
        finally:
            del model.load_weights
        for method, kernel in kernels:
            method.moe_kernel = method.moe_kernel or kernel
        _repack_tied_head(model)
        is_quantized = self.model_config.quantization is not None  # type: ignore[attr-defined]
        empty = parameters - filled if filled is not None and not is_quantized else set()
        return sorted(unread) + sorted(empty | untouched)


def _result(refused: list[str], begin: float) -> dict[str, Any]:
    return {"refused": refused, "not_loaded": [], "check_s": time.perf_counter() - begin}


def _map_tensors(path: str) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict


def _fact(tensor: torch.Tensor, with_checksum: bool) -> TensorFact:
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    crc = checksum(tensor.reshape(-1).view(torch.uint8).numpy()) if with_checksum else None
    return TensorFact(tuple(tensor.shape), name, crc)


def _untouched(model: Any) -> set[str]:
    """Parameters of layers in which a reload that is about to end has put nothing, whatever the model's loader says.

    A loader that writes into parameters by itself writes into ones that vLLM's reload has put there for the time being.
    """
    from vllm.model_executor.layers.attention import is_deferred_attention_layer
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

    found: set[str] = set()
    for name, module in model.named_modules():
        info = get_layerwise_info(module)
        has_nothing = info.can_load() and (info.load_numel or 0) <= 0
        # A head may share the embedding's weight, and attention has scales that few files hold.
        if has_nothing and not isinstance(module, ParallelLMHead) and not is_deferred_attention_layer(module):
            found |= {f"{name}.{last}" for last, _ in module.named_parameters(recurse=False)}
    return found


def _forget_packed_experts(model: Any) -> list[tuple[Any, Any]]:
    """On CPU the weights of experts are packed for their kernel only when that is made, at the first load.

    Those of a reload would be put where packed ones are expected, and nothing would say so. So the kernel is made anew
    by the reload, as vLLM's own code does where it has none.

    Returns:
        Whose kernel was which, for layers that the reload leaves out.
    """
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    kernels = []
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, UnquantizedFusedMoEMethod) and module.w13_weight.device.type == "cpu":
            kernels.append((method, method.moe_kernel))
            method.moe_kernel = None
    return kernels


def _repack_tied_head(model: Any) -> None:
    """On CPU a tied LM head keeps a packed copy of the embedding; pack it again after a reload."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    modules = list(model.modules())
    embeddings = {module.weight.data_ptr() for module in modules if type(module) is VocabParallelEmbedding}
    for module in modules:
        on_cpu = isinstance(module, ParallelLMHead) and module.weight.device.type == "cpu"
        if on_cpu and module.weight.data_ptr() in embeddings:
            module.quant_method.process_weights_after_loading(module)

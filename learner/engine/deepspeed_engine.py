"""The optimisation engine on DeepSpeed. The only file that imports deepspeed."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.config import LearnerConfig
from learner.engine.allocator import keep_freed_memory
from learner.engine.deepspeed_options import deepspeed_settings, with_fitting_bucket
from learner.engine.engine import WeightForm
from learner.engine.gradient_watch import GradientWatch
from learner.engine.state_copy import StateCopy
from learner.engine.state_recorder import StateRecorder
from learner.engine.weight_chunks import full_numel, shapes_of, weight_chunks

_TAG = "state"


def start_process_group(rank: int, world: int, host: str, port: int, device: torch.device, timeout_s: float) -> None:
    """Join the ranks of one learner: gloo on CPU, nccl on GPU. To be called once, before any engine is made.

    Args:
        host: address of rank 0.
        port: a free port there.
        timeout_s: longest time one collective operation may take.
    """
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK="0", MASTER_ADDR=host, MASTER_PORT=str(port))
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed

    keep_freed_memory()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else C++ is compiled at first use
    deepspeed.init_distributed(
        dist_backend="gloo" if device.type == "cpu" else "nccl", verbose=False, timeout=timedelta(seconds=timeout_s)
    )


class DeepSpeedEngine:
    """A :class:`learner.engine.engine.TrainEngine` on DeepSpeed with AdamW and ZeRO stage 0 to 3.

    DeepSpeed averages gradients over ranks, so losses are multiplied by the number of ranks. The boundary of gradient
    accumulation is set by hand, since the number of micro-batches differs from step to step.
    """

    def __init__(
        self, module: nn.Module, config: LearnerConfig, bfloat16: bool = False, saves_frozen: bool = True
    ) -> None:
        """Wrap a model; the process group must have been started.

        Args:
            module: equal on every rank; it is moved to the rank's device.
            config: ZeRO stage, AdamW and clipping.
            bfloat16: keep working weights and gradients in bfloat16 (master weights stay float32).
            saves_frozen: whether weights without gradients are part of the state; else the module is expected to have
                them when the state is loaded.
        """
        import deepspeed

        trained = [p for p in module.parameters() if p.requires_grad]
        settings = deepspeed_settings(config, bfloat16, torch.accelerator.is_available())
        optimizer = torch.optim.AdamW(
            trained,
            lr=0.0,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
        )
        self._engine = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config=with_fitting_bucket(settings, sum(map(full_numel, trained))),
        )[0]
        self.module = module
        self.num_parameters = sum(full_numel(p) for p in module.parameters())
        self._stage = config.zero_stage
        self._saves_frozen = saves_frozen
        self._bfloat16, self._offloads = bfloat16, config.offload != "none"
        self._max_grad_norm = config.max_grad_norm
        self._world = torch.distributed.get_world_size()
        self._watch = GradientWatch(module)

    def forward(self, **inputs: object) -> dict[str, Tensor]:
        """See :class:`learner.engine.engine.TrainEngine`."""
        outputs: dict[str, Tensor] = self._engine(**inputs)
        return outputs

    def backward(self, loss: Tensor, last: bool) -> None:
        """See :class:`learner.engine.engine.TrainEngine`."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._world)

    def grad_bound(self) -> Tensor:
        """See :class:`learner.engine.engine.TrainEngine`."""
        return self._watch.take()

    def discard(self) -> None:
        """See :class:`learner.engine.engine.TrainEngine`."""
        if self._stage == 0:
            self._engine.zero_grad()
            return
        if hasattr(self._engine.optimizer, "clear_hp_grads"):  # stage 1 with bfloat16: every rank holds all gradients
            self._engine.optimizer.zero_grad()
            return
        if self._offloads:  # gradients are in host memory, and their norms are what a step is judged by
            norms = self._engine.optimizer.norm_for_param_grads
            norms.update({key: norm * math.nan for key, norm in norms.items()})
            self._refused_step()
            return
        # ZeRO keeps gradients in places that differ by stage. It refuses a gradient that is not finite and clears all
        # of them: so one is made so, of a parameter that is small since it may have to be written in full.
        from deepspeed.utils import safe_set_full_grad, safe_set_local_grad

        victim: Any = min((p for p in self.module.parameters() if p.requires_grad), key=full_numel)
        if self._stage == 3:
            part = torch.zeros_like(victim.ds_tensor)  # its end may be padding, which nothing would clear of a NaN
            part[0] = math.nan if torch.distributed.get_rank() == 0 else 0.0
            safe_set_local_grad(victim, part)
        else:
            victim.grad = None  # what has gone into the float32 gradient already would be written in its place
            safe_set_full_grad(victim, torch.full_like(victim, math.nan))
        self._refused_step()

    def _refused_step(self) -> None:
        """Have ZeRO clear its gradients, as it does with those that are not finite."""
        self._engine.step()
        if self._engine.was_step_applied():
            raise RuntimeError("DeepSpeed took an optimiser step with a gradient that is not finite")

    def step(self, lr: float) -> float:
        """See :class:`learner.engine.engine.TrainEngine`."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        norm = self._clip_replicated() if self._stage == 0 else None
        if norm is None or math.isfinite(norm):
            self._engine.step()
        else:
            self._engine.zero_grad()
        if norm is None:
            norm = float(self._engine.get_global_grad_norm())
        if not math.isfinite(norm) or not self._engine.was_step_applied():
            raise FloatingPointError(f"the gradient's norm is {norm}")
        return norm

    def _clip_replicated(self) -> float:
        """Stage 0 has every gradient on every rank: clip them here, so that the norm is known."""
        limit = self._max_grad_norm or math.inf
        return float(nn.utils.clip_grad_norm_(self.module.parameters(), limit))

    def full_weights(self, form: WeightForm | None = None, trained_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """See :class:`learner.engine.engine.TrainEngine`. Under ZeRO-3 the weights are gathered some at a time."""
        is_first = torch.distributed.get_rank() == 0
        for chunk in weight_chunks(self.module, form, trained_only):
            with self._gathered(chunk):
                copies = {name: p.detach().to("cpu", copy=True) for name, p in chunk} if is_first else {}
            yield from (form(copies) if form is not None and is_first else copies).items()

    def weight_shapes(self, form: WeightForm | None = None) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """See :class:`learner.engine.engine.TrainEngine`."""
        return shapes_of(self.module, form)

    def device_weights(self, form: WeightForm | None = None) -> Iterator[tuple[str, Tensor]]:
        """See :class:`learner.engine.engine.TrainEngine`."""
        for chunk in weight_chunks(self.module, form):
            with self._gathered(chunk):
                weights = {name: parameter.detach() for name, parameter in chunk}
                if form is not None:
                    weights = form(weights)
                # Who reads may do so on streams that know nothing of the ones that have gathered and converted, or
                # that have made the last optimiser step.
                if torch.accelerator.is_available():
                    torch.accelerator.synchronize()
                while weights:
                    name = next(iter(weights))
                    weight = weights.pop(name)
                    if weight.is_cuda:  # it may be freed here before what reads it has run
                        weight.record_stream(torch.cuda.current_stream(weight.device))
                    yield name, weight
                    del weight

    def _gathered(self, chunk: Sequence[tuple[str, nn.Parameter]]) -> AbstractContextManager[None]:
        """In the block these parameters are whole on every rank."""
        import deepspeed

        gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
            [parameter for _, parameter in chunk], enabled=self._stage == 3
        )
        return gathered

    def copy_state(self) -> StateCopy:
        """See :class:`learner.engine.engine.TrainEngine`. What the files hold is up to DeepSpeed, as on loading."""
        recorder, theirs = StateRecorder(self._left_out()), self._engine.checkpoint_engine
        self._engine.checkpoint_engine = recorder
        self._engine._copy_recovery_script = recorder.add_scripts
        try:
            self._engine.save_checkpoint(
                ".", tag=_TAG, save_latest=False, exclude_frozen_parameters=not self._saves_frozen
            )
        finally:
            self._engine.checkpoint_engine = theirs
            del self._engine._copy_recovery_script
        return StateCopy(recorder.states, recorder.num_bytes, recorder.scripts)

    def _left_out(self) -> frozenset[str]:
        """Frozen weights by all of their names: DeepSpeed leaves out one name of each."""
        if self._saves_frozen:
            return frozenset()
        named = self.module.named_parameters(remove_duplicate=False)
        return frozenset(name for name, parameter in named if not parameter.requires_grad)

    def load_state(self, folder: Path, num_ranks: int, scratch: Path) -> None:
        """See :class:`learner.engine.engine.TrainEngine`. Stages 1 to 3 may go through DeepSpeed's universal format."""
        universal = self._stage > 0 and num_ranks != self._world
        if universal:
            if torch.distributed.get_rank() == 0:
                _to_universal(folder / _TAG, scratch / _TAG)
            torch.distributed.barrier()
            folder = scratch
        self._engine._config.load_universal_checkpoint = universal
        try:
            path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG, load_module_strict=self._saves_frozen)
        finally:
            self._engine._config.load_universal_checkpoint = False
        if path is None:
            raise FileNotFoundError(f"no DeepSpeed state in {folder}")

    def close(self) -> None:
        """See :class:`learner.engine.engine.TrainEngine`."""
        self._engine.destroy()


def _to_universal(source: Path, target: Path) -> None:
    """Put the ranks' parts of a saved state together, so that any number of ranks can load it."""
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(source), "--output_folder", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"converting {source} for another number of ranks failed: {done.stderr.strip()[-500:]}")

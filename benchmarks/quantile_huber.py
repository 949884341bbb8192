"""Time and memory of the exact quantile Huber loss against the pairwise form, forward plus backward.

``python -m benchmarks.quantile_huber [--device cuda]`` prints the tables of docs/benchmarks.md.

How it is measured. One thread. Both forms see the same q [token head M] and Y [token 1 K = M] in the same run, turn by
turn, and the ratio is the median over pairs of runs. The pairwise form keeps several [token head M K] tensors, so on a
CPU it gets a slice of the tokens whose residuals fill ``--slice-mib``, and its time and memory are multiplied up (both
are proportional to tokens). Slower is not fairer: large tensors come from fresh pages, which costs the pairwise form
much of its time. So there is a second ratio, to the pairwise form on pieces small enough for the cache of a core,
which is how one would write it if one had to.

Memory: a process of its own for each form; the kernel's high-water mark of resident memory is reset before the call
(``/proc/self/clear_refs``) and read after it (``VmHWM``), less what was resident before. Inputs and a first, tiny call
come before. On a GPU: ``torch.cuda.max_memory_allocated`` less ``memory_allocated``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_loss
from tests.learner.oracles import pairwise_huber

KAPPA = 0.05
OFFSETS = (0.0, 1.0, 10.0, 100.0, 1000.0)
PIECE_MIB = 2
"""Residuals of one piece in the second ratio; a dozen temporaries of this size still mostly stay in the caches."""
Loss = Callable[[Tensor, Tensor], Tensor]


def exact(q: Tensor, y: Tensor) -> Tensor:
    """The form used in training: one value per token and head."""
    return quantile_huber_loss(q, y, midpoint_taus(q.shape[-1], q.device, q.dtype), KAPPA)


def pairwise(q: Tensor, y: Tensor) -> Tensor:
    """The oracle of the tests."""
    return pairwise_huber(q, y, midpoint_taus(q.shape[-1], q.device, q.dtype), KAPPA).mean(dim=-1)


def inputs(num_tokens: int, num_heads: int, size: int, device: str, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sorted q [token head M] and unsorted Y [token 1 K], standard normal plus an offset."""
    generator = torch.Generator().manual_seed(size)
    q = torch.randn(num_tokens, num_heads, size, generator=generator).sort(dim=-1).values + offset
    y = torch.randn(num_tokens, 1, size, generator=generator) + offset
    return q.to(device).requires_grad_(), y.to(device)


def timed(loss: Loss, q: Tensor, y: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    q.grad = None
    if q.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss(q, y).sum().backward()
    if q.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def tokens_for(mib: float, num_heads: int, size: int, limit: int) -> int:
    """Tokens whose [token head M M] float32 residuals fill ``mib``."""
    return min(limit, max(1, round(mib * 2**20 / (4 * num_heads * size * size))))


def compare_time(size: int, args: argparse.Namespace) -> tuple[float, float, float, float, float]:
    """Median seconds of the exact form, of the pairwise one on a slice and in pieces (scaled), and the two ratios."""
    q, y = inputs(args.tokens, args.heads, size, args.device)
    whole = tokens_for(args.slice_mib, args.heads, size, args.tokens)
    piece = tokens_for(PIECE_MIB, args.heads, size, args.tokens)
    cut = lambda n: (q.detach()[:n].clone().requires_grad_(), y[:n])  # noqa: E731
    slice_q, slice_y = cut(whole)
    piece_q, piece_y = cut(piece)
    timed(exact, q, y)
    timed(pairwise, piece_q, piece_y)
    rows = []
    for _ in range(args.pairs):
        fast = timed(exact, q, y)
        at_once = timed(pairwise, slice_q, slice_y) * args.tokens / whole
        pieces = statistics.median(timed(pairwise, piece_q, piece_y) for _ in range(9)) * args.tokens / piece
        rows.append((fast, at_once, pieces, at_once / fast, pieces / fast))
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    return medians[0], medians[1], medians[2], medians[3], medians[4]


def extra_memory(loss_name: str, size: int, num_tokens: int, num_heads: int, device: str) -> float:
    """Peak extra MiB of one forward and backward pass, in this process."""
    torch.set_num_threads(1)
    loss = {"exact": exact, "pairwise": pairwise}[loss_name]
    timed(loss, *inputs(2, num_heads, size, device))
    q, y = inputs(num_tokens, num_heads, size, device)
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed(loss, q, y)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    timed(loss, q, y)
    return (resident("VmHWM") - before) / 1024


def resident(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not report {field}")


def compare_memory(size: int, args: argparse.Namespace) -> tuple[float, float]:
    """Peak extra MiB of the exact and of the pairwise form (scaled to all tokens), each in a new process."""
    whole = tokens_for(args.slice_mib, args.heads, size, args.tokens)
    found = []
    for name, tokens in (("exact", args.tokens), ("pairwise", whole)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            mib = pool.apply(extra_memory, (name, size, tokens, args.heads, args.device))
        found.append(mib * args.tokens / tokens)
    return found[0], found[1]


def largest_difference(size: int, offset: float, args: argparse.Namespace) -> tuple[float, float]:
    """Largest difference of loss and of gradient from the pairwise form in float64, relative to its largest entry."""
    q, y = inputs(16, args.heads, size, args.device, offset)
    wide = q.detach().double().requires_grad_()
    loss, truth = exact(q, y), pairwise(wide, y.double())
    (grad,) = torch.autograd.grad(loss.sum(), q)
    (true_grad,) = torch.autograd.grad(truth.sum(), wide)
    gap = lambda a, b: float((a.double() - b).abs().max() / b.abs().max())  # noqa: E731
    return gap(loss, truth), gap(grad, true_grad)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="exact against pairwise quantile Huber loss")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 500], help="M = K")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of timed runs")
    parser.add_argument("--slice-mib", type=float, help="residuals of the pairwise slice (128; 4096 on a GPU)")
    args = parser.parse_args()
    args.slice_mib = args.slice_mib or (128.0 if args.device == "cpu" else 4096.0)
    torch.set_num_threads(1)
    name = platform.processor() or platform.machine() if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {name}, one thread, {args.tokens} tokens, {args.heads} heads, kappa {KAPPA}\n")
    print("| M = K | exact, ms | pairwise, ms | ratio | in pieces, ms | ratio | exact, MiB | pairwise, MiB | ratio |"
          " slice, tokens |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size in args.sizes:
        fast, at_once, pieces, ratio, ratio_pieces = compare_time(size, args)
        mib, pairwise_mib = compare_memory(size, args)
        tokens = tokens_for(args.slice_mib, args.heads, size, args.tokens)
        print(f"| {size} | {fast * 1e3:.0f} | {at_once * 1e3:.0f} | {ratio:.0f} | {pieces * 1e3:.0f} "
              f"| {ratio_pieces:.0f} | {mib:.0f} | {pairwise_mib:.0f} | {pairwise_mib / mib:.0f} | {tokens} |",
              flush=True)  # fmt: skip
    print("\nLargest difference of float32 from the pairwise form in float64 (loss, gradient):\n")
    print("| M = K | " + " | ".join(f"offset {offset:g}" for offset in OFFSETS) + " |")
    print("|---" * (len(OFFSETS) + 1) + "|")
    for size in args.sizes:
        gaps = (largest_difference(size, offset, args) for offset in OFFSETS)
        print(f"| {size} | " + " | ".join(f"{a:.0e}, {b:.0e}" for a, b in gaps) + " |", flush=True)


if __name__ == "__main__":
    main()

"""The compiled quantile Huber loss against the pairwise form and against PyTorch's operations."""

from __future__ import annotations

import math
import shutil
import subprocess
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner import quantile_kernel
from learner.quantiles import midpoint_taus, quantile_huber_per_level
from tests.learner.oracles import grad_of, pairwise_huber

SOURCE = Path(quantile_kernel.__file__).with_suffix(".c")
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["vectors", "plain"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel built here, with the processor's vector instructions and without."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("kernel") / "kernel.so"
    flags = ["-O3", "-Wall", "-Werror", "-shared", "-fPIC", *(["-DWIDE=0"] if request.param == "plain" else [])]
    subprocess.run([compiler, *flags, "-o", str(path), str(SOURCE)], check=True, timeout=60)
    return path


@pytest.fixture
def built(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training uses this library."""
    monkeypatch.setattr(quantile_kernel, "_huber", quantile_kernel._load(ModuleSpec("k", None, origin=str(library))))
    assert quantile_kernel.is_built()


def draw(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=g)
    return {
        "normal": normal,
        "ties": normal.round(),
        "binary": (normal > 0.3).float(),
        "heavy": normal / torch.rand(shape, generator=g).clamp(min=1e-3),
    }[kind]


@pytest.mark.usefixtures("built")
@given(
    num=st.integers(1, 60),
    atoms=st.integers(1, 60),
    kind=st.sampled_from(["normal", "ties", "binary", "heavy"]),
    kappa=st.sampled_from([0.01, 0.05, 1.0, 5.0]),
    offset=st.sampled_from([0.0, 1.0, 1000.0, -1000.0]),
    ascending=st.booleans(),
    seed=st.integers(0, 10_000),
)
@SHARED
def test_equals_the_pairwise_form(
    num: int, atoms: int, kind: str, kappa: float, offset: float, ascending: bool, seed: int
) -> None:
    """To 1e-5 in float32, in any order of the queries, with queries on atoms."""
    q, y = draw("normal", (3, 2, num), seed) + offset, draw(kind, (3, 1, atoms), seed + 1) + offset
    share = min(num, atoms) // 2
    q[..., :share] = y[..., :share]
    q = q.sort(dim=-1).values if ascending else q
    taus = midpoint_taus(num)
    wide = [x.double() for x in (y, midpoint_taus(num, dtype=torch.float64))]
    exact = pairwise_huber(q.double(), *wide, kappa)
    found = quantile_huber_per_level(q, y, taus, kappa)
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-6)
    slope = grad_of(lambda x: pairwise_huber(x, *wide, kappa), q.double())
    assert torch.allclose(grad_of(lambda x: quantile_huber_per_level(x, y, taus, kappa), q).double(), slope, atol=2e-6)


@pytest.mark.usefixtures("built")
def test_equals_the_form_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """M = K = 200, the size of the preset."""
    q, y, taus = draw("normal", (50, 3, 200), 0).sort(-1).values, draw("heavy", (50, 1, 200), 1), midpoint_taus(200)
    loss = lambda x: quantile_huber_per_level(x, y, taus, 0.05)  # noqa: E731
    compiled, slope = loss(q), grad_of(loss, q)
    monkeypatch.setattr(quantile_kernel, "_huber", None)
    assert torch.allclose(compiled, loss(q), rtol=1e-6, atol=1e-7)
    assert torch.allclose(slope, grad_of(loss, q), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("built")
def test_special_values_and_views() -> None:
    """Not-a-number stays in its place, infinity does not run past the atoms, strided inputs are read as they look."""
    q = torch.tensor([[0.1, math.nan, 0.2, math.inf, -math.inf, 0.3]])
    y, taus = torch.tensor([[0.0, 0.15, 0.25]]), midpoint_taus(6)
    found = quantile_huber_per_level(q, y, taus, 0.05)
    calm = quantile_huber_per_level(q.nan_to_num(0.0, 0.0, 0.0), y, taus, 0.05)
    assert found[0, [0, 2, 5]].tolist() == calm[0, [0, 2, 5]].tolist()
    assert found[0, 1].isnan()
    assert not found[0, 3:5].isfinite().any()
    wide = draw("normal", (8, 12), 3)
    strided = quantile_huber_per_level(wide[:, ::2], y.expand(8, 3), taus, 0.05)
    assert torch.equal(strided, quantile_huber_per_level(wide[:, ::2].clone(), y.repeat(8, 1), taus, 0.05))


@pytest.mark.usefixtures("built")
def test_serves_only_what_it_computes() -> None:
    q = torch.zeros(1, 2, 3)
    assert quantile_kernel.serves(q, 0.05)
    assert not quantile_kernel.serves(q, 0.0)
    assert not quantile_kernel.serves(q.double(), 0.05)
    assert not quantile_kernel.serves(q.to("meta"), 0.05)


def test_without_a_usable_library_nothing_is_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("not a library")
    assert quantile_kernel._load(None) is None
    assert quantile_kernel._load(ModuleSpec("k", None, origin=str(broken))) is None
    assert quantile_kernel._load(ModuleSpec("k", None, origin=torch._C.__file__)) is None  # lacks the function

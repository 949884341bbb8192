"""The compiled forms of a quantile critic's loss against the pairwise form and against PyTorch's operations."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import HeadMask, TokenView
from learner.maths.kernels import quantile_kernel
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_per_level
from learner.metrics import Metrics
from tests.learner.oracles import grad_of, pairwise_huber

SOURCES = [Path(quantile_kernel.__file__).with_name(name) for name in ("quantile_kernel.c", "critic_kernel.c")]
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["vectors", "plain"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel built here, with the processor's vector instructions and without."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("kernel") / "kernel.so"
    flags = ["-O3", "-Wall", "-Werror", "-shared", "-fPIC", *(["-DWIDE=0"] if request.param == "plain" else [])]
    sums = ["-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"]  # as in setup.py
    subprocess.run([compiler, *flags, *sums, "-o", str(path), *map(str, SOURCES), "-lm"], check=True, timeout=120)
    return path


@pytest.fixture
def built(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training uses this library."""
    monkeypatch.setattr(quantile_kernel, "_library", quantile_kernel._load(ModuleSpec("k", None, origin=str(library))))
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
    wide, wide_taus = y.double(), midpoint_taus(num, dtype=torch.float64)
    exact = pairwise_huber(q.double(), wide, wide_taus, kappa)
    found = quantile_huber_per_level(q, y, taus, kappa)
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-6)
    slope = grad_of(lambda x: pairwise_huber(x, wide, wide_taus, kappa), q.double())
    assert torch.allclose(grad_of(lambda x: quantile_huber_per_level(x, y, taus, kappa), q).double(), slope, atol=2e-6)


@pytest.mark.usefixtures("built")
def test_equals_the_form_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """M = K = 200, the size of the preset."""
    q, y, taus = draw("normal", (50, 3, 200), 0).sort(-1).values, draw("heavy", (50, 1, 200), 1), midpoint_taus(200)
    loss = lambda x: quantile_huber_per_level(x, y, taus, 0.05)  # noqa: E731
    compiled, slope = loss(q), grad_of(loss, q)
    monkeypatch.setattr(quantile_kernel, "_library", None)
    assert torch.allclose(compiled, loss(q), rtol=1e-6, atol=1e-7)
    assert torch.allclose(slope, grad_of(loss, q), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("count", [255, 256, 257, 511, 512, 700, 4096, 4097])
def test_any_number_of_atoms(count: int) -> None:
    """Atoms are looked for by groups of 256, and one by one where there are very many."""
    q, y, taus = draw("normal", (2, 3, 31), 0), draw("normal", (2, 1, count), 1), midpoint_taus(31)
    exact = pairwise_huber(q.double(), y.double(), midpoint_taus(31, dtype=torch.float64), 0.05)
    assert torch.allclose(quantile_huber_per_level(q, y, taus, 0.05).double(), exact, rtol=1e-5, atol=1e-6)


def build(name: str, options: Mapping[str, Any]) -> ActorCritic:
    algorithm = build_algorithm(name, options)
    assert isinstance(algorithm, ActorCritic)
    return algorithm


def compiled(algorithm: ActorCritic, q: Tensor) -> Any:
    """The arguments of the compiled pass, or None where it cannot serve."""
    return algorithm.side.compiled_form(q)


CRITIC = {"critic": {"num_heads": 3, "num_quantiles": 40}, "alpha": 0.15, "beta": 0.2}
HEAVY = {"risk_coef": 0.7, "cvar_coef": 0.5, "gain_coef": 0.6, "shift_coef": 0.3, "shape_coef": 0.4}
NEIGHBOURS = {"curvature_form": "asymmetric", "curvature_min_iqr": 0.05}
FORMS: list[dict[str, Any]] = [
    {},
    HEAVY,
    {"curvature_coef": 0.01, **NEIGHBOURS},
    {"curvature_coef": 1.0, "consistency_coef": 2.0, "risk_eta": -2.0, **NEIGHBOURS},
    {"tail_sides": "one_sided", "shift_form": "hinge", "curvature_form": "unimodal", "curvature_coef": 0.3, **HEAVY},
    {
        "curvature_form": "smooth",
        "curvature_coef": 0.01,
        "risk_direction": "upper",
        "shape_contract": 0.1,
        "shape_expand": 3.0,
        **HEAVY,
    },
    {"head_bootstrap_p": 0.5, **HEAVY},
    {"cvar_coef": 0.0, "gain_coef": 0.0, "shape_coef": 0.0, "curvature_coef": 0.01, **NEIGHBOURS},
    {**dict.fromkeys(("curvature_coef", "consistency_coef", *HEAVY), 0.0), "alpha": 0.1, "beta": 0.1},
    {"critic": {"num_heads": 1, "num_quantiles": 7}, "alpha": 0.45, "beta": 0.45},
    {"critic": {"num_heads": 3, "num_quantiles": 40, "monotonicity": "cumsum"}, "huber_kappa": 1.0},
]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize(("kind", "offset", "atoms"), [("normal", 0.0, 1), ("ties", 1000.0, 30), ("heavy", -5.0, 200)])
def test_all_terms_equal_the_form_in_pytorch(
    options: dict[str, Any], kind: str, offset: float, atoms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, gradient and metrics of dvpo, against PyTorch's operations in float64."""
    algorithm = build("dvpo", {**CRITIC, **options})
    algorithm.scale.update(torch.tensor([-3.0, 1.0, 2.0]))
    head = algorithm.critic_config
    assert head is not None
    q = (2.0 * draw("normal", (20, head.num_heads, head.num_quantiles), 0) + offset).sort(dim=-1).values
    y = (draw(kind, (20, atoms), 1) + offset).sort(dim=-1).values
    factors = draw("binary", (20, head.num_heads), 2) * 2.0 if "head_bootstrap_p" in options else None
    weights = draw("normal", (20,), 3).abs()

    def run(q: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Metrics]:
        q = q.clone().requires_grad_()
        rows = {} if factors is None else {HeadMask: HeadMask(factors.to(q))}
        losses, metrics = algorithm.side.token_losses(TokenView(q, y, rows=rows))
        (losses * weights.to(q)).sum().backward()
        assert q.grad is not None
        return losses.detach().double(), q.grad.double(), metrics

    assert compiled(algorithm, q) is not None
    losses, slope, metrics = run(q, y)
    monkeypatch.setattr(quantile_kernel, "_library", None)
    exact, exact_slope, exact_metrics = run(q.double(), y.double())
    assert torch.allclose(losses, exact, rtol=1e-5, atol=1e-6)
    assert torch.allclose(slope, exact_slope, rtol=1e-5, atol=1e-5 * float(exact_slope.abs().max()))
    assert list(metrics) == list(exact_metrics)
    for name, metric in metrics.items():
        assert metric.value == pytest.approx(exact_metrics[name].value, rel=1e-5, abs=1e-9), name


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    "options",
    [
        {"calibration": "target_tail"},
        {"shift_form": "batch_hinge"},
        {"shape_ref": "old"},
        {"value_clip": 0.5},
        {"huber_kappa": 0.0},
        {"curvature_coef": 0.01},
    ],
)
def test_other_forms_are_left_to_pytorch(options: dict[str, Any]) -> None:
    q = draw("normal", (4, 3, 40), 0)
    assert compiled(build("dvpo", {**CRITIC, **options}), q) is None
    assert compiled(build("dvpo", CRITIC), q) is not None
    assert compiled(build("dfpo", {}), q) is None


@pytest.mark.usefixtures("built")
def test_targets_of_other_states_are_refused() -> None:
    q = draw("normal", (4, 3, 40), 0)
    for shape in ((3, 9), (4, 1, 9), (4, 0)):
        with pytest.raises(ValueError, match="do not fit quantile_values"):
            build("dvpo", CRITIC).side.token_losses(TokenView(q, torch.zeros(shape)))


@pytest.mark.usefixtures("built")
def test_all_terms_pass_infinity_and_not_a_number_on() -> None:
    """Where the caller looks for them."""
    algorithm = build("dvpo", CRITIC)
    for bad in (math.nan, math.inf):
        q = draw("normal", (3, 3, 40), 0).sort(dim=-1).values
        q[1, 0, -1] = bad
        atoms = draw("normal", (3, 9), 1).sort(-1).values
        losses, _ = algorithm.side.token_losses(TokenView(q.requires_grad_(), atoms))
        assert losses.isfinite().tolist() == [True, False, True]
        losses.sum().backward()
        assert q.grad is not None and q.grad[[0, 2]].isfinite().all() and not q.grad[1].isfinite().all()


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

"""The flow head: its formula by hand, its start, and the outputs that training gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from learner.config import ModelConfig
from learner.maths.quantiles.quantiles import midpoint_taus
from learner.models.critic import load_critic
from learner.models.flow import FlowHeads, normal_quantiles
from learner.models.spec import CriticConfig

CONFIG = CriticConfig(num_heads=2, num_quantiles=7, head="flow", flow_hidden=5, prior_mean=0.3, prior_scale=2.0)


def random_heads() -> FlowHeads:
    heads = FlowHeads(4, CONFIG, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return heads


def velocity(heads: FlowHeads, head: int, z: torch.Tensor, u: float, hidden: torch.Tensor) -> torch.Tensor:
    """v(z, u, h) of one head in one state, [M], written out."""
    inner = (
        heads.from_state[head] @ hidden + heads.from_value[head] @ z + heads.from_time[head] * u + heads.offset[head]
    )
    return heads.weight[head] @ (inner * torch.sigmoid(inner)) + heads.bias[head]


def test_one_euler_step_and_velocities_by_hand() -> None:
    heads = random_heads()
    g = torch.Generator().manual_seed(1)
    hidden, targets = torch.randn(3, 4, generator=g), torch.randn(2, 7, generator=g).sort(-1).values
    times = torch.rand(2, 2, generator=g)
    found = heads(hidden, targets, times)
    z0 = normal_quantiles(7)
    torch.testing.assert_close(z0.double(), torch.distributions.Normal(0.0, 1.0).icdf(midpoint_taus(7)).double())
    for n in range(3):
        for head in range(2):
            raw = z0 + velocity(heads, head, z0, 0.0, hidden[n])
            torch.testing.assert_close(found["quantile_values"][n, head], raw.sort().values)
    for n in range(2):
        for name, u in zip(("flow_velocity", "flow_velocity_other"), times[n].tolist(), strict=True):
            between = (1 - u) * z0 + u * targets[n]
            for head in range(2):
                torch.testing.assert_close(found[name][n, head], velocity(heads, head, between, u, hidden[n]))
    assert 0.0 < found["raw_crossing_frac"].mean() < 1.0
    point = heads(hidden[:2], targets[:, :1], times)["flow_velocity"]
    spread_out = heads(hidden[:2], targets[:, :1].expand(2, 7), times)["flow_velocity"]
    assert torch.equal(point, spread_out)  # a point target is M equal atoms
    assert set(heads(hidden)) == {"quantile_values", "raw_crossing_frac"}


def test_it_starts_sorted_and_narrow_and_heads_differ() -> None:
    heads = FlowHeads(16, CONFIG, seed=0)
    values = heads(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)))
    expected = 0.3 + 0.4 * (midpoint_taus(7) - 0.5)
    torch.testing.assert_close(values["quantile_values"], expected.expand(50, 2, 7), rtol=0, atol=0.02)
    assert not values["raw_crossing_frac"].any()
    assert not torch.equal(heads.from_state[0], heads.from_state[1])
    assert torch.equal(FlowHeads(16, CONFIG, seed=0).from_value, heads.from_value)


def test_the_critic_keeps_its_contract_with_a_flow(tiny_model: Path) -> None:
    critic = load_critic(ModelConfig(path=str(tiny_model)), CONFIG, seed=0)
    ids = torch.randint(6, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 3:8] = mask[1, 2:5] = True
    targets, times = torch.rand(2, 9, 7).sort(-1).values, torch.rand(2, 9, 2)
    found = critic(ids, mask, flow_targets=targets, flow_times=times)
    plain = critic(ids, mask, end_positions=torch.tensor([8, 8]))
    for name in ("quantile_values", "flow_velocity", "flow_velocity_other"):
        assert found[name].shape == (2, 9, 2, 7)
        assert not found[name][~mask].any() and found[name][mask].all()
    torch.testing.assert_close(plain["quantile_values"], found["quantile_values"])
    assert plain["end_values"].shape == (2, 2, 7)
    (found["flow_velocity"].sum() + found["flow_velocity_other"].sum() + found["quantile_values"].sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())
    linear = load_critic(ModelConfig(path=str(tiny_model)), CriticConfig(num_quantiles=7), seed=0)
    with pytest.raises(ValueError, match="flow_targets are for a critic with a flow head"):
        linear(ids, mask, flow_targets=targets, flow_times=times)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "flow", "monotonicity": "cumsum"}, "monotonicity must be 'sort', got 'cumsum'"),
        ({"flow_hidden": 8}, "flow_hidden has no effect without head 'flow'"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CriticConfig(**options)

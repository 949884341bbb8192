"""Options are read by one strict base class: unknown keys and numbers that are none are refused wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

from cluster.config.run_config import AlgorithmSpec
from rollout.component import ComponentSpec, StrictModel
from rollout.rewards.function import FunctionReward

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rollout", "learner", "actors", "cluster")
NOT_STRICT: dict[type[BaseModel], str] = {
    ComponentSpec: "carries the options of a class that is found later, whose own Config is strict",
    AlgorithmSpec: "carries the options of an algorithm that is found later, whose own Config is strict",
}
TAKES_MORE_KEYS: dict[type[BaseModel], str] = {
    FunctionReward.Config: "further keys are the function's own arguments and are checked against its signature",
}


def option_models() -> list[type[BaseModel]]:
    """Every pydantic class of the four packages, nested ones too; modules that define none are not imported."""
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        text = path.read_text(encoding="utf-8")
        if "Config" in text and "class " in text and path.name != "__main__.py":
            import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))

    def below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for found in model.__subclasses__():
            yield found
            yield from below(found)

    ours = {model for model in below(BaseModel) if model.__module__.split(".")[0] in PACKAGES}
    return sorted(ours, key=lambda model: f"{model.__module__}.{model.__qualname__}")


def test_every_class_of_options_is_strict() -> None:
    models = option_models()
    assert len(models) > 100  # the walk has found them
    for model in models:
        if model is StrictModel or model in NOT_STRICT:
            continue
        assert issubclass(model, StrictModel), f"{model.__module__}.{model.__qualname__} accepts what it should refuse"
        config = model.model_config
        assert config.get("allow_inf_nan") is False and config.get("frozen") is True, model
        assert config.get("extra") == ("allow" if model in TAKES_MORE_KEYS else "forbid"), model


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("key", ["prior_mean", "prior_scale"])
def test_a_critic_has_finite_numbers(key: str, text: str) -> None:
    from learner.models.spec import CriticConfig

    with pytest.raises(ValueError, match="finite number"):
        CriticConfig.model_validate({key: float(text.replace(".", ""))})

"""A drawing of calibration curves: mean score against the share of right responses."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rollout.audit.calibration import Calibration
from rollout.component.mistakes import NotWritable


def has_matplotlib() -> bool:
    """Whether drawings can be made here."""
    return find_spec("matplotlib") is not None


def draw_calibration(curves: Mapping[str, Calibration], path: Path) -> None:
    """Draw reliability curves with their intervals into an image file.

    Args:
        curves: label -> curve.
        path: the file; its ending says which format.

    Raises:
        UserError: it cannot be written.
    """
    # Here, since it is an optional package: see has_matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, curve in curves.items():
        scores = [found.mean_score for found in curve.bins]
        right = [found.right for found in curve.bins]
        below = [share.value - share.low for share in right]
        above = [share.high - share.value for share in right]
        values = [share.value for share in right]
        axes.errorbar(scores, values, yerr=[below, above], marker="o", capsize=3, label=label)
    low, high = (min(0.0, axes.get_xlim()[0]), max(1.0, axes.get_xlim()[1]))
    axes.plot([0.0, 1.0], [0.0, 1.0], "k:", lw=1, label="calibrated")
    axes.set(xlabel="observed score", ylabel="share right", xlim=(low, high), ylim=(-0.03, 1.03))
    axes.legend()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise NotWritable(f"{path}: cannot be written: {error.strerror}") from error

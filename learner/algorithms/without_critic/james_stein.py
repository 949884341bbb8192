"""James-Stein baseline: a prompt's mean, drawn towards that of the other prompts by as much as it is uncertain."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.algorithms.invariance import ALIKE, answers, gone
from learner.algorithms.without_critic.groups import group_index
from learner.algorithms.without_critic.rloo import RLOO


def shrunk_baselines(scores: Tensor, group_ids: Tensor) -> Tensor:
    """``b_ij = (1 - l_i) * mean_{-j} r_i + l_i * mean_{-i}`` (2511.03710 Eq 16), [n] float64.

    With n prompts, mu_k and m_k mean and number of prompt k's scores: ``mean_{-i}`` is the mean of mu_k over k != i
    (Eq 10); ``v_{-i} = mean_{k != i} sum_j (r_kj - mu_k)^2 / (m_k * (m_k - 1))`` estimates how uncertain a mean is, and
    ``s_{-i} = mean_{k != i} (mu_k - mean_{-i})^2`` how far prompts are apart (Eq 13 and 14); and
    ``l_i = (n - 1) / n * v_{-i} / (v_{-i} + s_{-i})`` (Eq 15; 0 for 0 / 0). Nothing of a baseline depends on its own
    score.

    Prompts with a single score leave v out and are compared with the others alone; a lone prompt has l = 0, and a lone
    score itself as its baseline, so that nothing is learned from it (our choices; the paper's groups are of one size).
    """
    index, sizes = group_index(group_ids)
    wide, count, num = scores.double(), sizes.double(), len(sizes)
    zero = torch.zeros_like(count)
    means = zero.scatter_add(0, index, wide) / count
    squares = zero.scatter_add(0, index, (wide - means[index]).square())
    of_mean = squares / (count * (count - 1.0)).clamp(min=1.0)
    others = means[index] + (means[index] - wide) / (count[index] - 1.0).clamp(min=1.0)  # without the score itself
    if num == 1:
        return others
    is_other = 1.0 - torch.eye(num, dtype=wide.dtype, device=wide.device)
    centre = is_other @ means / (num - 1)
    several = is_other * (count > 1).to(wide.dtype)
    uncertainty = several @ of_mean / several.sum(dim=1).clamp(min=1.0)
    distance = (is_other * (means - centre[:, None]).square()).sum(dim=1) / (num - 1)
    total = uncertainty + distance
    share = torch.where(total > 0.0, (num - 1) / num * uncertainty / total, torch.zeros_like(total))
    share = torch.where(count > 1, share, torch.ones_like(share))
    return (1.0 - share[index]) * others + share[index] * centre[index]


class JamesStein(RLOO):
    """RLOO with a shrunk baseline (2511.03710): ``A_ij = r_ij - b_ij`` with :func:`shrunk_baselines`, from the paper.

    Few samples of a prompt say little of its mean; the other prompts of the batch say where means lie. Unlike a group's
    own mean it leaves a signal where all samples of a prompt score the same. Scores and advantages are detached; the
    loss is that of RLOO here (no division by a spread).
    """

    min_prompts = 3

    @answers(shift=gone("the mean of the others"), scale=ALIKE)
    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Advantage of each trajectory of the global batch, [n]."""
        return (scores.double() - shrunk_baselines(scores, group_ids)).to(scores.dtype)

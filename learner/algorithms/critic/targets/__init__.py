"""What the critic regresses to, and the advantages that go with it, by name; ``base.CriticTarget`` says what one is."""

from __future__ import annotations

TARGETS: dict[str, str] = {
    "lambda_return": "learner.algorithms.critic.targets.lambda_return:LambdaReturn",
    "mixture": "learner.algorithms.critic.targets.mixture:Mixture",
    "dual_replacement": "learner.algorithms.critic.targets.dual_replacement:DualReplacement",
    "quantile_wise": "learner.algorithms.critic.targets.quantile_wise:QuantileWise",
    "monte_carlo": "learner.algorithms.critic.targets.monte_carlo:MonteCarlo",
    "robust_min_heads": "learner.algorithms.critic.targets.robust:MinHeads",
    "robust_contamination": "learner.algorithms.critic.targets.robust:Contamination",
    "robust_cvar": "learner.algorithms.critic.targets.robust:RobustCVaR",
    "robust_tv": "learner.algorithms.critic.targets.robust:RobustTV",
    "robust_kl": "learner.algorithms.critic.targets.robust:RobustKL",
    "after_token": "learner.algorithms.critic.targets.after_token:AfterToken",
}
"""Type name -> ``module:Class``."""

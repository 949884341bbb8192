"""dvpo from Python: train, measure, and look at what runs have written. For scripts and notebooks.

A mistake in what is given raises :class:`UserError`, whose message says what is wrong and what would be right.
Importing this loads neither torch nor Ray nor vLLM.
"""

from cluster.config.processes.search_path import import_packages

import_packages()  # before anything else, which might find a module of the user's in the place of a package

from cluster.api.commands import Evaluation, compare, evaluate, train  # noqa: E402
from cluster.api.run_data import Run, load_run  # noqa: E402
from rollout.component import UserError  # noqa: E402

__all__ = ["Evaluation", "Run", "UserError", "compare", "evaluate", "load_run", "train"]

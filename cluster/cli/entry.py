"""The command line: ``dvpo``, or ``python -m cluster.cli``.

Importing this module loads neither torch nor Ray nor vLLM, so that ``--help`` and mistakes in a configuration answer
at once; each command imports what it needs. A mistake of the user's ends with one message and exit status 2.
"""

from __future__ import annotations

import gc
import signal
from typing import Any

import click

from cluster import __version__
from cluster.cli import jobs as cli_jobs
from cluster.cli import report as cli_report
from cluster.cli import reward as cli_reward
from cluster.cli import reward_model as cli_reward_model
from cluster.cli import run as cli_run
from cluster.cli import study as cli_study
from cluster.cli import tools as cli_tools
from cluster.cli.output import UserMistake
from cluster.config.processes.search_path import prepare_process
from rollout.component import UserError
from rollout.component.errors import coded
from rollout.component.mistakes import Usage


class Commands(click.Group):
    """Turns user mistakes and Ctrl-C into messages and exit statuses, whichever command they come from."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise UserMistake(str(error)) from error
        except click.UsageError as error:
            raise click.UsageError(coded(error.format_message(), Usage.code), error.ctx) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(128 + signal.SIGINT)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dvpo")
def main() -> None:
    """Train language models by reinforcement learning when rewards are noisy.

    A run is described by one YAML file; configs/ has examples, and `dvpo schema` tells an editor what may be in it.

    Exit status: 0 done, 1 the run failed, 2 something given is wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    # Python's 700 new objects between two collections are a ninth of what a check takes, which is mostly loading.
    gc.set_threshold(10_000, 20, 20)
    prepare_process()


for command in (
    cli_tools.init,
    cli_run.train,
    cli_run.check,
    cli_run.plan,
    cli_run.evaluate,
    cli_run.audit,
    cli_study.study,
    cli_jobs.submit,
    cli_jobs.jobs,
    cli_jobs.status,
    cli_jobs.stop,
    cli_jobs.scale,
    cli_report.report,
    cli_report.explain,
    cli_report.compare,
    cli_report.watch,
    cli_reward.reward,
    cli_reward_model.reward_model,
    cli_tools.ledger,
    cli_tools.schema,
    cli_tools.doctor,
    cli_tools.warmstart,
):
    main.add_command(command)

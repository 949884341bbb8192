"""``python -m cluster.cli``."""

from cluster.cli.entry import main

main(prog_name="dvpo")

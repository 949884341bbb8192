"""``dvpo reward test``: the reward of a configuration against lines whose right verdict is known."""

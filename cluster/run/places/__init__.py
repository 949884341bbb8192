"""Where the processes of a run go, and whether the hosts are fit for them."""

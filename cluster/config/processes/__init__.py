"""What the processes of a run are started with: their environment, where they find modules, what is shipped to them."""

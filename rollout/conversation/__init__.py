"""One conversation from prompt to trajectory, in one turn or several."""

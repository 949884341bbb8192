"""What a run shows to people afterwards: its folder read into one record, a diagnosis, and a page to look at."""

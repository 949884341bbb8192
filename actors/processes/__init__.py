"""What watches the processes of a run from inside."""

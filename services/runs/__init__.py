"""Runs: the queue of a session, and what a worker does with a run."""

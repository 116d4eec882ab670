"""Durable execution of run segments: what was enqueued is executed, also when processes die."""

"""Metrics: facts and rollups, the questions that are asked of them, live figures, and what is told of people."""

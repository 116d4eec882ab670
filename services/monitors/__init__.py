"""Monitors: metrics are watched, incidents opened and closed, and people and systems told."""

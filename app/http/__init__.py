"""Doors beside the graph, and what all doors share: who asks, and from where."""

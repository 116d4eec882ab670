"""Sharing: who may do what with a session, how they came to it, and how they used it."""

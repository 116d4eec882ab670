"""Session templates."""

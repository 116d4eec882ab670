"""The sequence of changes to the database."""

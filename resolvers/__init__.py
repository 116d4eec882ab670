"""Reads: scope by actor, page, batch. Know nothing of GraphQL: an `Actor` and plain arguments in, rows out."""

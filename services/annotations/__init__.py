"""What is said about sessions: threads of comments at a place, reactions, and scores."""

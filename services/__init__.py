"""What the product does: rules and writes. Knows nothing of requests or of GraphQL."""

"""What the product is compared with: programs that answer the same questions on the same database."""

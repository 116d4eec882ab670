"""What models cost, what was spent, and what may be."""

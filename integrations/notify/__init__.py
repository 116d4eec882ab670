"""Ways to tell people something outside of the product."""

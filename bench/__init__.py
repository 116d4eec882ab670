"""Measures the product's speed beside what else could be run on the same tables. `make bench`; docs/performance.md."""

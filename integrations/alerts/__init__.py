"""Systems that take alerts."""

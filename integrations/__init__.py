"""The outside world: a `base.py` Protocol for each kind of system, and one file or folder per system. Imports core."""

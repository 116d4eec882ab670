"""Runs operations by plans: compiled once per document, then executed breadth-first for all parents of a field at once.

It knows the schema as graphql-core has it, and is told by an `Outline` how each field's values are read.
"""

from executor.fields import Field
from executor.plans import Begun, Plan, Plans, Unsupported
from executor.sources import Batch, Call, Outline, Read, Resolve, Source

__all__ = ["Batch", "Begun", "Call", "Field", "Outline", "Plan", "Plans", "Read", "Resolve", "Source", "Unsupported"]

"""The notice that wakes the workers which evaluate monitors."""

from __future__ import annotations

from services.parts import parts

MONITORS = "monitors"
"""The bus channel."""


async def wake() -> None:
    """Have them look what is due. Without it they look by themselves, every other second."""
    await parts().bus.publish(MONITORS, {})

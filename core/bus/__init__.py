"""Live notices between the processes of one installation: small, ordered, and never lost without saying so.

`broadcaster` carries the channels; this package adds what it leaves open (docs/dependencies.md): one backend
subscription per channel and process, bounded fan-out that tells a slow reader, a supervised connection, and a
`Gap` wherever something may have been missed. A notice says that something happened and where to read it (ids,
a sequence number); the database stays the one source of what happened. The way to miss nothing is therefore:
subscribe, read the database, then follow the notices, and read the database again at every `Gap`.
"""

from core.bus.bus import Bus, BusStatus
from core.bus.notices import JSON, BusMessage, BusSubscription, Gap, Notice

__all__ = ["JSON", "Bus", "BusMessage", "BusStatus", "BusSubscription", "Gap", "Notice"]

"""Who is in a session now, what they look at, and what they are about to say.

All of it is ephemeral: processes tell each other over the bus, and nothing is stored. `rooms` is what others use.
"""

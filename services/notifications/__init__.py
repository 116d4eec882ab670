"""Telling people what concerns them: in their inbox, and by mail where they want it."""

"""Live streams. Each subscribes first, replays what is stored after the cursor, then follows."""

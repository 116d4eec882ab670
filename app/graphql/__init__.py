"""The doors of the graph: HTTP, server-sent events and WebSocket."""

"""Facts of agents that run elsewhere, from their OpenTelemetry spans and metrics."""

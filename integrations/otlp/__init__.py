"""Telemetry of others, as the OpenTelemetry protocol (OTLP) brings it."""

"""How a session is doing: counters for OpenTelemetry, and a line that says it in words."""

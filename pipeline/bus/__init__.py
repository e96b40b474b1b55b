"""The event bus: events over ZMQ with a store behind it, as docs/PROTOCOL.md describes."""

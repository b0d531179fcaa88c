"""The wire contract between sidecar and flusher: events, bytes, keys and scripts. Pure: it does no I/O."""

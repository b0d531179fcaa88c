"""The sidecar: takes events, makes them durable, counts them in Redis."""

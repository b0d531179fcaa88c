"""Sending events from files to a sidecar over HTTP, in a way that may be interrupted and repeated."""

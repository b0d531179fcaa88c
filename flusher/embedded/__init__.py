"""Embedded servers: Valkey and PostgreSQL from Python wheels, for `taximeter up`, the demo and the tests."""

"""The catalog: meters, plans, customers and subscriptions, read from TOML, checked whole, compared and applied.

`parse` reads a file, `diff` compares it with what is in force. Both are pure; `flusher.catalog_store` keeps the
result in Postgres. README.md beside this file has the decisions.
"""

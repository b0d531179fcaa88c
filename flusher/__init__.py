"""The flusher: drains what sidecars counted into PostgreSQL, prices it and invoices it."""

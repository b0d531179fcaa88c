"""What `taximeter demo` shows: a catalog, and a month of traffic whose sum is known beforehand."""

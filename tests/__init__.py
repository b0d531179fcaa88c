"""The tests: what Taximeter promises, on real servers."""

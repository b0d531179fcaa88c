"""The contract's tests: the machine may be busy, so no property has a deadline."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

"""What every test shares."""

from hypothesis import settings

# A busy machine is no failure: no test has a deadline.
settings.register_profile("default_without_deadline", deadline=None)
settings.load_profile("default_without_deadline")

"""Settings that all tests share."""

from hypothesis import settings

# Shared, noisy machines: a deadline would only measure the neighbours.
settings.register_profile("onlooker", deadline=None, max_examples=50)
settings.load_profile("onlooker")

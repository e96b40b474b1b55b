"""Settings that all tests share."""

import signal

from hypothesis import settings

# Shared, noisy machines: a deadline would only measure the neighbours.
settings.register_profile("onlooker", deadline=None, max_examples=50)
settings.load_profile("onlooker")

# Scripts start what runs in the background with SIGINT ignored, and children inherit that: then no Ctrl-C reaches them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""The scenarios of `live_soak.py`."""

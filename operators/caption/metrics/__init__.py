"""Metrics of dense video captions: how well events are found, and how well they are told.

Two protocols that the field uses, see ``protocols.py``. METEOR and what is built on it (SODA_c) run the published Java
program; everything else is Python.
"""

"""A camera that plays a file, with faults on command; test equipment, and ``onlooker simulate-camera``."""

from .process import SimulatedCamera

__all__ = ["SimulatedCamera"]

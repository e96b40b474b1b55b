"""onlooker watches video and tells what happens while it happens."""

__version__ = "0.1.0"

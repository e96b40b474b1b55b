"""The ``onlooker`` command."""

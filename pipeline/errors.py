"""Errors that are the user's to mend: one clear line, no stack trace."""

from __future__ import annotations

__all__ = ["GraphError", "OnlookerError", "OutputError", "UsageError"]


class OnlookerError(Exception):
    """Base of the errors that the command line shows as one line; ``exit_code`` is what it exits with."""

    exit_code = 2


class UsageError(OnlookerError):
    """The command or call does not make sense as given."""


class GraphError(OnlookerError):
    """The graph, or an override of it, is wrong."""


class OutputError(OnlookerError):
    """An output cannot be written."""

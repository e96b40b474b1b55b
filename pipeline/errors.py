"""Errors of the pipeline that are the user's to mend."""

from __future__ import annotations

from onlooker.operators.errors import OnlookerError

__all__ = ["GraphError", "OnlookerError", "OutputError", "UsageError"]


class UsageError(OnlookerError):
    """The command or call does not make sense as given."""


class GraphError(OnlookerError):
    """The graph, or an override of it, is wrong."""


class OutputError(OnlookerError):
    """An output cannot be written."""

"""The base of all errors that are the user's to mend."""

__all__ = ["OnlookerError"]


class OnlookerError(ValueError):
    """Something the user gave cannot work. The message is one line: what is wrong, and what to do.

    The command line prints it without a stack trace and exits with ``exit_code``.
    """

    exit_code = 2

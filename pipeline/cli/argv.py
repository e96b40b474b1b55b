"""Keeps credentials that were typed on the command line out of the list of processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from onlooker.operators.errors import OnlookerError

from ..secrets import Secrets

__all__ = ["forget_hidden_sources", "hide_in_process_list"]

_VARIABLE = "ONLOOKER_HIDDEN_SOURCE_"


def hide_in_process_list(sources: Sequence[str], secrets: Secrets) -> None:
    """Start this command anew with the credentials of its sources in its environment, if they stand in its arguments.

    Everybody on a machine can read the arguments of a process, and Ray shows them; the environment only its user can.

    Raises:
        SecretsError: a source names a secret that cannot be had beside one that is written out.
    """
    arguments, environment = list(sys.orig_argv[1:]), dict(os.environ)
    for number, source in enumerate(sources):
        place = next((i for i, text in enumerate(arguments) if text == source or text.endswith(f"={source}")), None)
        if place is not None and _is_secret(secrets.written(source)):
            environment[f"{_VARIABLE}{number}"] = secrets.resolve(source, "the source")
            option = arguments[place].removesuffix(source)  # `--bridge=`, or nothing
            arguments[place] = f"{option}${{env:{_VARIABLE}{number}}}"
    if arguments != sys.orig_argv[1:] and os.name == "posix":
        os.execve(sys.executable, [sys.orig_argv[0], *arguments], environment)


def forget_hidden_sources() -> None:
    """Take them out of the environment once they have been read: children would inherit them."""
    for name in [name for name in os.environ if name.startswith(_VARIABLE)]:
        del os.environ[name]


def _is_secret(source: str) -> bool:
    if "://" not in source:
        return False
    from onlooker.operators.decode.live.address import parse_source

    try:
        address = parse_source(source)
    except OnlookerError:  # it will be told when the source is read; no part of it is known to be harmless
        return "@" in source
    return address.has_credentials or "***" in address.shown

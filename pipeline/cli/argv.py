"""Keeps credentials that were typed on the command line out of the list of processes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from onlooker.operators.errors import OnlookerError

from ..secrets import Secrets

__all__ = ["out_of_process_list"]

_VARIABLE = "ONLOOKER_HIDDEN_"
_PLACE = re.compile(r"\$\{env:(" + _VARIABLE + r"[0-9]+)\}")


def out_of_process_list(addresses: Sequence[str]) -> list[str]:
    """The addresses as the user wrote them; with credentials among them, this command is started anew without them.

    Everybody on a machine can read the arguments of a process, and Ray shows them; the environment only its user can,
    where they stand until the new process has read them here. Its children do not inherit them.
    """
    arguments, environment = list(sys.orig_argv[1:]), dict(os.environ)
    for number, address in enumerate(addresses):
        place = next((i for i, text in enumerate(arguments) if text == address or text.endswith(f"={address}")), None)
        if place is not None and _is_secret(Secrets.written(address)):
            environment[f"{_VARIABLE}{number}"] = address
            option = arguments[place].removesuffix(address)  # `--bridge=`, or nothing
            arguments[place] = f"{option}${{env:{_VARIABLE}{number}}}"
    if arguments != sys.orig_argv[1:] and os.name == "posix":
        os.execve(sys.executable, [sys.orig_argv[0], *arguments], environment)
    hidden = [_PLACE.fullmatch(address) for address in addresses]
    return [os.environ.pop(m[1], text) if m else text for m, text in zip(hidden, addresses, strict=True)]


def _is_secret(address: str) -> bool:
    if "://" not in address:
        return False
    from onlooker.operators.decode.live.address import parse_source

    try:
        found = parse_source(address)
    except OnlookerError:  # that of a bridge, or a wrong one: no part of it is known to be harmless
        return "@" in address or "?" in address
    return found.has_credentials or "***" in found.shown

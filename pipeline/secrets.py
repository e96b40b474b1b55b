"""Passwords and tokens from outside: ``${env:NAME}`` and ``${secret:NAME}`` in graph files and sources.

They come from the environment and from one small file that only its owner can read, so that they need not stand in a
graph file, the shell's history or the list of processes. What was used is remembered, so that it can be masked.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from onlooker.operators.registry import suggest

from .errors import OnlookerError

__all__ = ["SECRETS_VARIABLE", "Secrets", "SecretsError"]

SECRETS_VARIABLE = "ONLOOKER_SECRETS"
"""Environment variable that names the secrets file where no other is given."""

_PLACE = re.compile(r"\$\{([A-Za-z]+):([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# What stands between :// and the last @ before the path.
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)((?:\$\{[^}]*\}|[^/?#])*)@")
_LARGEST = 1 << 20  # bytes; a larger file is another one
_MASK = "***"


class SecretsError(OnlookerError):
    """A secret cannot be had. The message is one line and holds none."""


class Secrets:
    """Looks values up and remembers those that were used."""

    def __init__(self, file: str | Path | None = None) -> None:
        """Take secrets from ``file``, by default the one that ``ONLOOKER_SECRETS`` names; read when first needed."""
        self._file = file or os.environ.get(SECRETS_VARIABLE) or None
        self._named: Mapping[str, str] | None = None
        self._used: set[str] = set()

    def resolve(self, text: str, where: str) -> str:
        """Return ``text`` with every ``${env:NAME}`` and ``${secret:NAME}`` replaced by its value.

        Values in the user and password of a URL are escaped, so that a password may hold any character.

        Args:
            text: what the user wrote.
            where: what is being read, for messages: ``the source``, ``nodes.decode.config.fps``.

        Raises:
            SecretsError: a value is not there, or the secrets file cannot be used.
        """
        login = _LOGIN.match(text)
        if login is None:
            return self._replaced(text, where)
        # A single value may be the whole USER:PASSWORD; where the colon is written, none comes from a value.
        safe = "" if ":" in _PLACE.sub("", login[2]) else ":"
        return login[1] + self._replaced(login[2], where, safe) + self._replaced(text[login.end(2) :], where)

    @staticmethod
    def written(source: str) -> str:
        """Return what anybody can read of a source: without its places and a login that is made of places alone."""
        login = _LOGIN.match(source)
        if login and not _PLACE.sub("", login[2]).strip(":"):
            source = login[1] + source[login.end() :]
        return _PLACE.sub("", source)

    def mask(self, value: Any) -> Any:
        """Return a text, or a document of mappings, lists and plain values, with every used value as ``***``."""
        if isinstance(value, Mapping):
            return {key: self.mask(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mask(item) for item in value]
        if not isinstance(value, str):
            return _MASK if str(value) in self._used else value
        for used in sorted(self._used, key=len, reverse=True):
            value = value.replace(used, _MASK)
        return value

    def _replaced(self, text: str, where: str, safe: str | None = None) -> str:
        """Replace in ``text``; with ``safe``, percent-encode all but these and the unreserved characters."""

        def lookup(match: re.Match[str]) -> str:
            value = self._value(match[1], match[2], where)
            written = value if safe is None else quote(value, safe=safe)
            self._used |= {value, written} - {""}  # the empty one hides nothing
            return written

        return _PLACE.sub(lookup, text)

    def _value(self, kind: str, name: str, where: str) -> str:
        if kind == "env":
            found = os.environ.get(name)
            if found is None:
                raise SecretsError(f"{where} needs the environment variable {name}, which is not set.")
            return found
        if kind != "secret":
            raise SecretsError(f"{where} has a ${{{kind}:{name}}}; write ${{env:NAME}} or ${{secret:NAME}}.")
        if self._file is None:
            raise SecretsError(
                f"{where} needs the secret {name}, but no secrets file is given; use --secrets FILE or set "
                f"{SECRETS_VARIABLE}."
            )
        if self._named is None:
            self._named = _read(Path(self._file))
        if name not in self._named:
            raise SecretsError(
                f"{where} needs the secret {name}, which is not in {Path(self._file).name}; "
                f"{suggest(name, list(self._named))}"
            )
        return self._named[name]


def _read(path: Path) -> dict[str, str]:
    """Read a YAML mapping (``.yaml``, ``.yml``) or lines of ``NAME=VALUE``."""
    try:
        with path.open("rb") as file:
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                command = f"chmod 600 {shlex.quote(str(path))}"
                raise SecretsError(f"other users of this computer can get at the secrets file; run: {command}")
            data = file.read(_LARGEST + 1)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise SecretsError(f"cannot read the secrets file {path.name}: {why}; check --secrets.") from None
    if len(data) > _LARGEST:
        raise SecretsError(f"the secrets file {path.name} is too large to be one; check --secrets.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SecretsError(f"the secrets file {path.name} is not UTF-8 text; save it as such.") from None
    return _of_yaml(text, path.name) if path.suffix.lower() in (".yaml", ".yml") else _of_lines(text, path.name)


def _of_yaml(text: str, name: str) -> dict[str, str]:
    try:
        # All values as they are written: a password may look like a number or a date.
        document = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:  # its words would show the line
        raise SecretsError(f"the secrets file {name} is not valid YAML; write a line NAME: 'VALUE' for each.") from None
    if document is None or document == "":
        return {}
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise SecretsError(f"the secrets file {name} should be a mapping; write a line NAME: 'VALUE' for each.")
    return document


def _of_lines(text: str, name: str) -> dict[str, str]:
    """``NAME=VALUE``; values may stand in quotes, and a # in them is theirs. Lines that begin with # are comments."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _NAME.fullmatch(key):
            raise SecretsError(f"line {number} of the secrets file {name} should read NAME=VALUE.")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[key] = value[1:-1] if quoted else value
    return found

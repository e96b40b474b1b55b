"""Keys of the bus: CURVE pairs in files, and folders of keys that are let in.

Files have the form of CZMQ certificates (ZPL, RFC 4): ``NAME.key`` holds the public key, ``NAME.key_secret`` both.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import zmq

from ..errors import OnlookerError

__all__ = ["ZAP_DOMAIN", "Access", "AllowList", "ClientKeys", "KeyPair", "KeysError", "Role", "ServerKeys", "new_keys"]

Role = Literal["read", "control", "publish"]
"""What a key may do: read events; also give commands; hand over events."""

ZAP_DOMAIN = b"onlooker"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}")
_MEMBER = re.compile(r'^\s+([A-Za-z-]+)\s*=\s*"([^"]*)"\s*$', re.MULTILINE)
_Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_LARGEST = 64 << 10  # bytes; a larger file is another one
_LOOK_EVERY = 1.0
"""Seconds between two looks at a folder of keys."""


class KeysError(OnlookerError):
    """A key cannot be used. The message is one line and holds no key."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, or only its public half."""

    name: str
    public: bytes
    """Z85, 40 bytes."""
    secret: bytes | None = field(default=None, repr=False)
    role: Role | None = None

    @classmethod
    def read(cls, path: str | Path, *, secret: bool) -> KeyPair:
        """Read ``NAME.key`` or ``NAME.key_secret``.

        Args:
            path: the file.
            secret: whether the secret key is needed too; then nobody else may be able to read the file.

        Raises:
            KeysError: it cannot be read, is no such file, or others can read the secret in it.
        """
        path = Path(path)
        members = _members(path, private=secret)
        public, hidden, role = members.get("public-key", ""), members.get("secret-key"), members.get("role")
        if not _Z85.fullmatch(public) or (secret and not _Z85.fullmatch(hidden or "")):
            wanted = "NAME.key_secret" if secret else "NAME.key"
            raise KeysError(f"{str(path)!r} holds no such key; give a {wanted} that `onlooker keys new NAME` wrote.")
        if role is not None and role not in get_args(Role):
            raise KeysError(f"{str(path)!r} has the unknown role {role!r}; roles are {', '.join(get_args(Role))}.")
        name = path.name.removesuffix("_secret").removesuffix(".key")
        return cls(name, public.encode(), hidden.encode() if secret and hidden else None, cast("Role | None", role))


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs: a pair of its own, and the public key of the bus."""

    own: KeyPair
    server: bytes
    """Z85."""

    @classmethod
    def read(cls, own: str | Path, server: str | Path) -> ClientKeys:
        """Read the own ``NAME.key_secret`` and the bus's ``SERVER.key``.

        Raises:
            KeysError: one of them cannot be used.
        """
        return cls(KeyPair.read(own, secret=True), KeyPair.read(server, secret=False).public)

    def apply(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket a CURVE client; before it connects."""
        socket.curve_serverkey = self.server
        socket.curve_publickey = self.own.public
        socket.curve_secretkey = self.own.secret


class Access(NamedTuple):
    """Who may connect, and as what."""

    name: str
    role: Role


class AllowList:
    """The public keys in a folder, read again when it changes. May be asked from any thread."""

    def __init__(self, folder: str | Path) -> None:
        """Read the folder.

        Raises:
            KeysError: it is no folder, or a file in it is no key.
        """
        self._folder, self._lock = Path(folder), threading.Lock()
        self._files = self._look()
        self._keys = {pair.public: Access(pair.name, pair.role or "read") for pair in self.pairs(self._folder)}
        self._looked = time.monotonic()

    @staticmethod
    def pairs(folder: str | Path) -> list[KeyPair]:
        """The public keys in a folder, by name.

        Raises:
            KeysError: it is no folder, or a file in it is no key.
        """
        if not Path(folder).is_dir():
            raise KeysError(f"there is no folder {str(folder)!r}; make it and copy the .key files of clients into it.")
        return [KeyPair.read(path, secret=False) for path in sorted(Path(folder).glob("*.key"))]

    def access(self, public: bytes) -> Access | None:
        """What the owner of this key (Z85) may do; None if it is not let in."""
        with self._lock:
            # A client that is refused does not try again by itself, so one that has just been allowed must get in.
            if public not in self._keys or time.monotonic() - self._looked >= _LOOK_EVERY:
                self._refresh()
            return self._keys.get(public)

    def _refresh(self) -> None:
        """A file that cannot be read lets nobody in, and keeps nobody else out."""
        self._looked = time.monotonic()
        files = self._look()
        if files == self._files:
            return
        keys: dict[bytes, Access] = {}
        for path in sorted(files):
            try:
                pair = KeyPair.read(path, secret=False)
            except KeysError:
                continue
            keys[pair.public] = Access(pair.name, pair.role or "read")
        self._files, self._keys = files, keys

    def _look(self) -> Mapping[Path, tuple[int, int, int]]:
        found = {}
        for path in self._folder.glob("*.key"):
            try:
                about = path.stat()
            except OSError:  # it went away this moment
                continue
            found[path] = (about.st_mtime_ns, about.st_size, about.st_ino)
        return found


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a bus needs: its own pair, and whom it lets in."""

    own: KeyPair
    allowed: AllowList

    @classmethod
    def read(cls, own: str | Path, allow: str | Path) -> ServerKeys:
        """Read the bus's ``SERVER.key_secret`` and the folder of allowed keys.

        Raises:
            KeysError: one of them cannot be used.
        """
        return cls(KeyPair.read(own, secret=True), AllowList(allow))

    def apply(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket a CURVE server; before it is bound."""
        socket.curve_server = True
        socket.curve_publickey = self.own.public
        socket.curve_secretkey = self.own.secret
        socket.zap_domain = ZAP_DOMAIN


def new_keys(name: str, folder: str | Path, role: Role | None = None) -> tuple[Path, Path]:
    """Make a pair; writes ``NAME.key`` and ``NAME.key_secret`` (for its owner alone) and returns their paths.

    Raises:
        KeysError: the name will not do, there is such a key, or the folder cannot be written.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise KeysError(f"{name!r} is no name of a key; use letters, digits, '.', '_' and '-', at most 60.")
    public_path, secret_path = Path(folder) / f"{name}.key", Path(folder) / f"{name}.key_secret"
    public, secret = (key.decode() for key in zmq.curve_keypair())
    head = "metadata\n" + (f'    role = "{role}"\n' if role else "") + f'curve\n    public-key = "{public}"\n'
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _write(secret_path, f'# Secret. Whoever has it can act as {name}.\n{head}    secret-key = "{secret}"\n', 0o600)
        _write(public_path, f"# Public. May be shown to anybody.\n{head}", 0o644)
    except FileExistsError as error:
        raise KeysError(f"there is a {error.filename!r} already; choose another name, or remove it first.") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise KeysError(f"cannot write keys to {str(folder)!r}: {reason}; choose another --folder.") from None
    return public_path, secret_path


def _write(path: Path, text: str, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        file.write(text)


def _members(path: Path, *, private: bool) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).decode("utf-8", "replace")
            shared = os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise KeysError(
            f"cannot read the key {str(path)!r}: {reason}; make one with `onlooker keys new NAME`."
        ) from None
    members = dict(_MEMBER.findall(re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)))
    if private and shared and "secret-key" in members:
        raise KeysError(f"other users of this computer can get at {str(path)!r}; run chmod 600 on it.")
    return members

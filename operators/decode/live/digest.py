"""Digest access authentication, as RTSP and HTTP share it."""

from __future__ import annotations

import hashlib
import re

__all__ = ["digest_fields", "digest_response"]

_PAIR = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')


def digest_fields(text: str) -> dict[str, str]:
    """Return what a challenge or its answer says after its scheme: names in lower case, values without quotes."""
    return {name.lower(): quoted or plain for name, quoted, plain in _PAIR.findall(text)}


def digest_response(
    user: str, realm: str, password: str, method: str, uri: str, nonce: str, *, quality: tuple[str, str, str] | None
) -> str:
    """Return `response` of an `Authorization: Digest` header with MD5 (RFC 2617 section 3.2.2.1), 32 hex digits.

    Args:
        user: User name.
        realm: What the server called itself in its challenge.
        password: Password.
        method: Method of the request.
        uri: The request's URI as the header repeats it.
        nonce: The server's, from its challenge.
        quality: `nc`, `cnonce` and `qop` as the header has them; None where the challenge had no qop.
    """
    secret = _md5(f"{user}:{realm}:{password}")
    return _md5(":".join([secret, nonce, *(quality or ()), _md5(f"{method}:{uri}")]))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

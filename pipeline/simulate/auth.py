"""Who may watch: Basic and Digest access authentication (RFC 2617), as RTSP and HTTP share them."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field

from onlooker.operators.decode.live.digest import digest_fields, digest_response

__all__ = ["Account"]

_REALM = "onlooker camera"


@dataclass(frozen=True)
class Account:
    """The one user that a simulated camera knows."""

    user: str
    password: str = field(repr=False)
    digest: bool = True
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def challenge(self) -> str:
        """Return what stands after ``WWW-Authenticate:``. Cameras mostly ask without qop; answers with it are taken."""
        if self.digest:
            return f'Digest realm="{_REALM}", nonce="{self.nonce}", algorithm=MD5'
        return f'Basic realm="{_REALM}"'

    def admits(self, method: str, uri: str, header: str) -> bool:
        """Check an ``Authorization:`` header, "" for none, of a request."""
        scheme, _, rest = header.partition(" ")
        if self.digest:
            return scheme.lower() == "digest" and self._digest_right(method, uri, rest)
        return scheme.lower() == "basic" and self._basic_right(rest)

    def _basic_right(self, token: str) -> bool:
        right = base64.b64encode(f"{self.user}:{self.password}".encode())
        return hmac.compare_digest(token.strip().encode("latin-1", "replace"), right)

    def _digest_right(self, method: str, uri: str, text: str) -> bool:
        """Section 3.2.2. The answer must be to our nonce and for this very request."""
        given = digest_fields(text)
        if given.get("username") != self.user or given.get("nonce") != self.nonce or given.get("uri") != uri:
            return False
        quality = (given.get("nc", ""), given.get("cnonce", ""), given["qop"]) if "qop" in given else None
        right = digest_response(self.user, _REALM, self.password, method, uri, self.nonce, quality=quality)
        return hmac.compare_digest(given.get("response", "").encode("latin-1", "replace"), right.encode())

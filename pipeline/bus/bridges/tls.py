"""TLS towards the other side of a bridge: always verified."""

from __future__ import annotations

import ssl
from pathlib import Path

from .address import BridgeAddress
from .failure import BridgeError

__all__ = ["client_context"]


def client_context(address: BridgeAddress, ca: Path | None, cert: Path | None) -> ssl.SSLContext:
    """A context that trusts the system's authorities, or those of ``ca`` alone, and shows ``cert`` where it is asked.

    Raises:
        BridgeError: a file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise BridgeError(f"{address.shown}: the file of the setting ca holds no certificates (PEM).") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert)
        except (OSError, ssl.SSLError):
            raise BridgeError(
                f"{address.shown}: the file of the setting cert does not hold a certificate and its key (PEM)."
            ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

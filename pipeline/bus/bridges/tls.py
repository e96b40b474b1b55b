"""TLS towards the other side of a bridge: always verified."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import Field

from .address import BridgeAddress, Settings
from .failure import BridgeError

__all__ = ["TlsSettings", "client_context"]


class TlsSettings(Settings):
    """Settings of bridges that can be encrypted."""

    ca: Path | None = Field(default=None, description="Certificates of an authority of your own (PEM).")
    cert: Path | None = Field(default=None, description="Certificate of this client (PEM), its key included.")


def client_context(address: BridgeAddress, settings: TlsSettings) -> ssl.SSLContext | None:
    """A context that trusts the system's authorities, or those of ``ca`` alone, and shows ``cert`` where it is asked.

    None where the address is not of TLS.

    Raises:
        BridgeError: a file cannot be read.
    """
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError):
        raise BridgeError(f"{address.shown}: the file of the setting ca holds no certificates (PEM).") from None
    if settings.cert is not None:
        try:
            context.load_cert_chain(settings.cert)
        except (OSError, ssl.SSLError):
            raise BridgeError(
                f"{address.shown}: the file of the setting cert does not hold a certificate and its key (PEM)."
            ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

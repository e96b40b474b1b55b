"""One client's RTP stream: its numbers, its sender reports, and the two ways in which it travels."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import struct
import time
from collections import deque
from typing import Protocol

from .camera import Camera, Picture
from .rtp import goodbye, rtp_packet, sender_report
from .sdp import payload_type

__all__ = ["Outlet", "RtpStream", "TcpOutlet", "UdpOutlet", "open_udp"]

_RTP, _RTCP = 0, 1
_MOST_WAITING = 1 << 20  # bytes that a client may leave unread before pictures are skipped
_UDP_PORTS = range(20_000, 60_000, 2)
_TRIES = 50
# A key frame at once would overflow the receiver's socket; 16 packets a millisecond are 180 Mbit/s.
_BURST, _PAUSE = 16, 0.001  # packets, seconds
_MOST_PACKETS = 8192  # half a second of bursts


class Outlet(Protocol):
    """Where packets go."""

    def send(self, kind: int, packet: bytes) -> None:
        """Send an RTP (0) or RTCP (1) packet; never blocks."""

    @property
    def congested(self) -> bool:
        """Whether the client does not take what it is sent."""

    def close(self) -> None:
        """Stop sending."""


class TcpOutlet:
    """Packets between the messages of the RTSP connection (RFC 2326 section 10.12)."""

    def __init__(self, writer: asyncio.StreamWriter, channels: tuple[int, int]) -> None:
        """Use the channels for RTP and RTCP."""
        self._writer, self._channels = writer, channels

    def send(self, kind: int, packet: bytes) -> None:
        """Send a packet."""
        if not self._writer.is_closing():
            self._writer.write(struct.pack(">cBH", b"$", self._channels[kind], len(packet)) + packet)

    @property
    def congested(self) -> bool:
        """Whether a client leaves its data unread."""
        return self._writer.transport.get_write_buffer_size() > _MOST_WAITING

    def close(self) -> None:
        """Leave the connection open; it is not ours."""


class UdpOutlet:
    """A pair of UDP sockets, connected to the client's pair."""

    def __init__(self, ports: tuple[int, int]) -> None:
        """Know our own ports; `open_udp` gives the sockets."""
        self.ports = ports
        self.heard = time.monotonic()  # when the client last sent something
        self.transports: list[asyncio.DatagramTransport] = []
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def send(self, kind: int, packet: bytes) -> None:
        """Send a packet, after those that wait."""
        self._waiting.append((kind, packet))
        if self._timer is None:
            self._burst()

    @property
    def congested(self) -> bool:
        """Whether more waits than can be sent in time."""
        return len(self._waiting) > _MOST_PACKETS

    def close(self) -> None:
        """Send what waits and close both sockets."""
        if self._timer is not None:
            self._timer.cancel()
        self._send(len(self._waiting))
        for transport in self.transports:
            transport.close()

    def _burst(self) -> None:
        if not self._waiting:
            self._timer = None
            return
        self._send(_BURST)
        self._timer = asyncio.get_running_loop().call_later(_PAUSE, self._burst)

    def _send(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            kind, packet = self._waiting.popleft()
            if not self.transports[kind].is_closing():
                self.transports[kind].sendto(packet)


class _Ear(asyncio.DatagramProtocol):
    """Hears receiver reports, which say that the client is there. Errors are what UDP is expected to have."""

    def __init__(self, outlet: UdpOutlet) -> None:
        self._outlet = outlet

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._outlet.heard = time.monotonic()


async def open_udp(host: str, client: str, ports: tuple[int, int]) -> UdpOutlet:
    """Open a pair of sockets at `host`, an even port and the next one, that send to the client's pair.

    Raises:
        OSError: there is no free pair, or no way to the client.
    """
    sockets, own = _bind_pair(host)
    outlet = UdpOutlet(own)
    try:
        for sock, port in zip(sockets, ports, strict=True):
            sock.connect((client, port))
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Ear(outlet), sock=sock)
            outlet.transports.append(transport)
    except OSError:
        outlet.close()
        for sock in sockets:
            sock.close()
        raise
    return outlet


def _bind_pair(host: str) -> tuple[list[socket.socket], tuple[int, int]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in random.sample(_UDP_PORTS, _TRIES):
        sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
        try:
            for number, sock in enumerate(sockets):
                sock.setblocking(False)
                sock.bind((host, port + number))
            return sockets, (port, port + 1)
        except OSError:
            for sock in sockets:
                sock.close()
    raise OSError("no two free UDP ports")


class RtpStream:
    """Sends the pictures to one client, from a key frame on. SSRC, sequence and timestamps start at random."""

    def __init__(self, camera: Camera, outlet: Outlet, interval: float | None, host: str) -> None:
        """Report every `interval` seconds, or never; `host` stands in the reports as the sender's name."""
        self.outlet, self.ssrc = outlet, secrets.randbits(32)
        self.sequence = secrets.randbits(16)
        self._camera, self._interval, self._name = camera, interval, f"camera@{host}"
        self._base = secrets.randbits(32)
        self._needs_key = True
        self._packets = self._octets = 0
        self._next_report = 0.0

    def timestamp(self, instant: float) -> int:
        """Return the RTP timestamp of an instant."""
        return self._base + self._camera.ticks(instant) & 0xFFFFFFFF

    def play(self) -> None:
        """Send from the next key frame on."""
        self._needs_key = True
        self._camera.watch(self)

    def pause(self) -> None:
        """Send no more for now."""
        self._camera.leave(self)

    def close(self) -> None:
        """Send no more."""
        self.pause()
        self.outlet.close()

    def end(self) -> None:
        """Say good-bye."""
        self.outlet.send(_RTCP, goodbye(self.ssrc))

    def deliver(self, picture: Picture) -> None:
        """Send a picture as RTP packets, and a report when it is time."""
        counters = self._camera.counters
        if self.outlet.congested or (self._needs_key and not picture.unit.key):
            self._needs_key = True
            counters.frames_skipped += 1
            return
        self._needs_key = False
        kind = payload_type(self._camera.format)
        last = len(picture.payloads) - 1
        for number, payload in enumerate(picture.payloads):
            self._packet(payload, self._base + picture.ticks, kind, number == last)
        counters.frames_sent += 1
        now = time.monotonic()
        if self._interval is not None and now >= self._next_report:
            self._next_report = now + self._interval
            self._report(now)

    def _packet(self, payload: bytes, timestamp: int, kind: int, marker: bool) -> None:
        effects, counters = self._camera.effects, self._camera.counters
        sequence, self.sequence = self.sequence, self.sequence + 1 & 0xFFFF
        self._packets += 1
        self._octets += len(payload)
        if effects.loses():
            counters.packets_dropped += 1
            return
        packet = rtp_packet(
            effects.spoiled(payload),
            sequence=sequence,
            timestamp=timestamp,
            ssrc=self.ssrc,
            payload_type=kind,
            marker=marker,
        )
        self.outlet.send(_RTP, packet)
        counters.packets_sent += 1

    def _report(self, now: float) -> None:
        if self._camera.effects.active("no-reports"):
            return
        report = sender_report(
            ssrc=self.ssrc,
            wall=self._camera.clock.wall(now),
            timestamp=self.timestamp(now),
            packets=self._packets,
            octets=self._octets,
            name=self._name,
        )
        self.outlet.send(_RTCP, report)
        self._camera.counters.reports_sent += 1

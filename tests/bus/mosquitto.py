"""Mosquitto, the broker that most homes with Home Assistant have, and a client that listens to it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho

_BINARY = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

needs_mosquitto = pytest.mark.skipif(
    _BINARY is None and os.environ.get("ONLOOKER_REQUIRE_MOSQUITTO") != "1", reason="needs the broker mosquitto"
)


class Mosquitto:
    """A broker in a process; it keeps its sessions in ``folder``, so that it may be stopped and started again."""

    def __init__(
        self, folder: Path, *, login: tuple[str, str] | None = None, tls: Path | None = None, more: str = ""
    ) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = folder / "log"
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/", "user root"]
        lines += ["log_dest stderr", "log_type all", f"allow_anonymous {'false' if login else 'true'}", more]
        if tls:
            lines += [f"certfile {tls}", f"keyfile {tls}"]
        if login:
            passwords = folder / "passwords"
            passwords.touch(mode=0o600)
            tool = shutil.which("mosquitto_passwd") or "mosquitto_passwd"
            subprocess.run([tool, "-b", str(passwords), *login], check=True, capture_output=True)
            lines.append(f"password_file {passwords}")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        assert _BINARY is not None, "mosquitto is not installed"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([_BINARY, "-c", str(self._config)], stderr=log, stdout=log)
        limit = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < limit and self.process.poll() is None, self._log.read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        """End it as a system does, so that it writes down its sessions."""
        self.process.terminate()
        self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Listener:
    """Records every message, also what the broker keeps for it while either is away."""

    def __init__(self, port: int, topic: str = "#", name: str = "listener") -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self.properties: list[Any] = []
        self._subscribed = False
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5, reconnect_on_failure=True
        )
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *rest: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *rest: setattr(self, "_subscribed", True)
        lasting = paho.Properties(paho.PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        self._client.loop_start()
        while not self._subscribed:
            time.sleep(0.01)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self.properties.append(message.properties)
        self.messages.append((message.topic, message.payload, message.retain))

    def of(self, topic: str) -> list[bytes]:
        return [payload for name, payload, _ in list(self.messages) if name == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from onlooker.pipeline.bus.bridges import BridgeError, make_bridges, read_bridges
from onlooker.pipeline.bus.bridges.address import parse_bridge
from onlooker.pipeline.secrets import Secrets, SecretsError


def names(*specs: Any) -> list[str]:
    return [bridge.name for bridge in make_bridges(specs, Secrets())]


def test_the_parts_of_an_address() -> None:
    address = parse_bridge("mqtts://me:a%40b@Broker.example/house/onlooker?kinds=caption,query&phase=end", Secrets())
    assert (address.host, address.port, address.path) == ("Broker.example", 8883, "house/onlooker")
    assert (address.user, address.password, address.tls) == ("me", "a@b", True)
    assert address.settings == {"kinds": "caption,query", "phase": "end"}


def test_several_hosts_and_addresses_of_ip_6() -> None:
    address = parse_bridge("kafka://one:1,[::1]:2,three/topic", Secrets())
    assert address.hosts == (("one", 1), ("::1", 2), ("three", 9092))
    assert address.shown == "kafka://one:1,[::1]:2,three:9092"


@pytest.mark.parametrize("password", ["a@b:c/d?e#f%41&g=h", "ü ß", "${x}"])
def test_a_secret_may_hold_any_character(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("P", password)
    address = parse_bridge("https://me:${env:P}@host/hook?secret=${env:P}&a=%41", Secrets())
    assert (address.password, address.settings["secret"], address.host) == (password, password, "host")
    monkeypatch.setenv("ALL", "https://me:${env:P}@host/hook?secret=${env:P}")
    address = parse_bridge("${env:ALL}", Secrets())
    assert (address.password, address.settings["secret"]) == (password, password)


@pytest.mark.parametrize(
    "spec",
    [
        "", "mqtt", "mqtt://", "ftp://host", "mqtt://host:0", "mqtt://host:70000", "mqtt://:1", "https://",
        "kafka://a,,b", "mqtt://host?kinds=Caption!", "mqtt://host?phase=over", "mqtt://host?kind=caption",
        "mqtt://host?stream=a/b", "mqtt://host/a/%2B/+", "https://host?batch=0", "https://host?batch=9999",
        "https://host?secret=whsec_hush!", "mqtts://host?ca=/nowhere/hush", "https://host?cert=/nowhere/hush", "kafkas://host?ca=/nowhere/hush",
        {"kinds": ["caption"]}, {"to": 5}, {"to": "https://host", "token": "hush"},
        {"to": "mqtt://me:hush@host", "kinds": "no kind"}, "mqtt://me:hush@host:nowhere", "amqp://me:hush@host",
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line_without_secrets(spec: Any) -> None:
    with pytest.raises(BridgeError) as caught:
        make_bridges([spec], Secrets())
    assert "\n" not in str(caught.value) and "hush" not in str(caught.value)


def test_the_nearest_setting_is_named() -> None:
    with pytest.raises(BridgeError, match="did you mean 'kinds'"):
        make_bridges(["mqtt://host?kind=caption"], Secrets())
    with pytest.raises(SecretsError, match="NOT_SET"):
        make_bridges(["mqtt://me:${env:NOT_SET}@host"], Secrets())


def test_nothing_shows_a_login_or_the_path_of_a_webhook() -> None:
    (bridge,) = make_bridges(["https://me:hush@host/services/T0/hush?token=hush&secret=hush"], Secrets())
    assert bridge.shown == "https://host:443"
    assert "hush" not in repr(parse_bridge("mqtt://me:hush@host/x", Secrets())) and "hush" not in bridge.name


def test_a_bridge_keeps_its_name_as_long_as_it_leads_to_the_same_place() -> None:
    here = names("mqtt://me:one@host/x?stream=cam1", "mqtt://host/x", "https://h/a?secret=1", "https://h/b")
    assert len(set(here)) == 4
    assert names("mqtt://you:two@host/x?stream=cam1&since=oldest", "https://h/a?secret=2&wait=1") == [here[0], here[2]]
    assert names("mqtt://host/x?name=mine") == ["mine"]


def test_the_same_bridge_twice_is_refused() -> None:
    with pytest.raises(BridgeError, match="given twice"):
        make_bridges(["mqtt://me@host", "mqtt://you@host"], Secrets())


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(BridgeError, match=r"pip install 'onlooker\[kafka\]'"):
        make_bridges(["kafka://host"], Secrets())
    with pytest.raises(BridgeError, match=r"pip install 'onlooker\[mqtt\]'"):
        make_bridges(["mqtt://host"], Secrets())


def test_bridges_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://host/hook")
    file = tmp_path / "bridges.yaml"
    file.write_text(
        "bridges:\n  - mqtt://host/x?kinds=caption\n  - to: ${env:HOOK}?stream=theirs\n    kinds: [caption, query]\n"
        "    batch: 5\n"
    )
    specs = read_bridges(file)
    first, second = make_bridges(specs, Secrets())
    assert (first.shown, second.shown) == ("mqtt://host:1883/x", "https://host:443")


@pytest.mark.parametrize("text", ["", "bridges: mqtt://host", "bridges: [[]]", "bridges: {", "- mqtt://host"])
def test_a_file_without_bridges_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bridges.yaml"
    file.write_text(text)
    with pytest.raises(BridgeError, match="bridges"):
        read_bridges(file)
    with pytest.raises(BridgeError, match="cannot read"):
        read_bridges(tmp_path / "other.yaml")

"""What others see of the command line, and what the command itself gets."""

import json
import os
import subprocess
import sys

import psutil
import pytest

LOOK = """
import json, os, sys, psutil
from onlooker.pipeline.cli.argv import out_of_process_list
addresses = out_of_process_list([text.removeprefix("--bridge=") for text in sys.argv[1:]])
seen = [psutil.Process().cmdline(), {k: v for k, v in os.environ.items() if "ONLOOKER" in k}]
print(json.dumps([addresses, seen]))
"""


def look(*arguments: str) -> tuple[list[str], str]:
    """The addresses that the command gets, and what its arguments and its children's environment hold."""
    command = [sys.executable, "-c", LOOK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TOKEN": "a&b%c#d"})
    addresses, seen = json.loads(done.stdout)
    return addresses, json.dumps(seen).replace(json.dumps(LOOK), "")


@pytest.mark.skipif(os.name != "posix", reason="a process cannot take another's place")
@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:hunter2@camera/1",
        "rtsp://admin:hunter2@${env:HOST}/1",
        "http://camera/video?token=hunter2",
        "mqtt://me:hunter2@broker:1883",
        "kafka://broker:9092?sasl_password=hunter2&group=${env:TOKEN}",
        "https://hooks.example/in?secret=${env:TOKEN}&key=hunter2",
    ],
)
def test_what_is_written_out_is_not_in_the_list_of_processes(address: str) -> None:
    for form in (address, f"--bridge={address}"):
        addresses, seen = look("street.mp4", form)
        assert addresses == ["street.mp4", address], "as the user wrote it: names of secrets are looked up later"
        assert "hunter2" not in seen and "street.mp4" in seen


def test_what_holds_no_secret_stays_as_it_is() -> None:
    plain = ["street.mp4", "rtsp://camera/1", "rtsp://${env:LOGIN}@camera/1", "lavfi:testsrc2"]
    addresses, seen = look(*plain)
    assert addresses == plain and all(text in seen for text in plain)
    assert psutil.Process().cmdline(), "the list of processes can be read here"

"""Sends a transport stream in datagrams at its own speed: FILE SECONDS HOST PORT LOSS, a share of which is not sent."""

import random
import socket
import sys
import time
from pathlib import Path


def main(path: str, seconds: str, host: str, port: str, loss: str) -> None:
    data = Path(path).read_bytes()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    draw = random.Random(1)
    step = 7 * 188
    begin = time.monotonic()
    lost = 0
    for position in range(0, len(data), step):
        time.sleep(max(0.0, begin + float(seconds) * position / len(data) - time.monotonic()))
        if position > 30 * step and draw.random() < float(loss):
            lost += 1
            continue
        sock.sendto(data[position : position + step], (host, int(port)))
    print(lost, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

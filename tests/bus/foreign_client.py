"""A subscriber as somebody would write it in another language: from docs/PROTOCOL.md, ZMQ and JSON alone.

It prints the number and id of every event, up to the number given. On purpose it loses messages and its connection.
"""

from __future__ import annotations

import json
import random
import sys
import time

import zmq


class Client:
    def __init__(self, address: str, stream: str | None) -> None:
        self.context = zmq.Context()
        self.address, self.stream = address, stream
        self.pos, self.epoch = 0, None
        self.asked = 0
        self.sub = self.subscribe()

    def subscribe(self):
        sub = self.context.socket(zmq.SUB)
        sub.rcvhwm, sub.linger = 10, 0
        topics = (b"v1/%s/" % self.stream.encode(), b"v1//heartbeat/") if self.stream else (b"v1/",)
        for topic in topics:
            sub.subscribe(topic)
        sub.connect(self.address)
        return sub

    def request(self, op: str, **members):
        """Section 5: asks until there is an answer; gives its first frame and the events."""
        host, port = self.address.rsplit(":", 1)
        while True:
            req = self.context.socket(zmq.REQ)
            req.linger = 0
            req.connect(f"{host}:{int(port) + 1}")
            self.asked += 1
            req.send(json.dumps({"v": 1, "id": str(self.asked), "op": op, **members}).encode())
            answered = req.poll(2000)
            frames = req.recv_multipart() if answered else []
            req.close()
            if frames:
                head = json.loads(frames[0])
                assert head["ok"], head
                assert head["id"] == str(self.asked)
                return head, list(zip(frames[1::2], frames[2::2], strict=True))

    def replay(self, until: int | None = None) -> None:
        while True:
            after = {"seq": self.pos} if self.epoch is None else {"seq": self.pos, "epoch": self.epoch}
            asked = {"after": after, "streams": [self.stream] if self.stream else [], "limit": 50}
            head, events = self.request("replay", **asked, **({} if until is None else {"until": until}))
            assert not head["reset"] and head["lost"] is None, head
            for header, body in events:
                self.take(json.loads(header), body)
            self.pos, self.epoch = head["upto"], head["epoch"]
            if self.pos >= head["last"] or (until is not None and self.pos >= until):
                return

    def take(self, header, body: bytes) -> None:
        event = json.loads(body)
        print(header["seq"], event["id"], flush=True)
        self.pos = header["seq"]

    def live(self, frames: list[bytes]) -> None:
        topic, header = frames[0], json.loads(frames[1])
        if self.epoch != header["epoch"]:
            self.replay()
        if topic == b"v1//heartbeat/":
            last = json.loads(frames[2])["streams"].get(self.stream, 0) if self.stream else header["seq"]
            if last > self.pos:
                self.replay()
            return
        seq = header["seq"]
        if seq is None or seq <= self.pos:
            return
        follows = header["prev"] <= self.pos if self.stream else seq == self.pos + 1
        if not follows:
            self.replay(until=seq - 1)
        self.take(header, frames[2])

    def run(self, last: int) -> None:
        dice = random.Random(5)
        hello, _ = self.request("hello")
        assert hello["protocol"] == 1
        self.replay()
        while self.pos < last:
            if self.sub.poll(3000 * hello["heartbeat"]):
                frames = self.sub.recv_multipart()
            else:  # silent for three intervals
                continue
            fate = dice.random()
            if fate < 0.2:  # a message is lost
                continue
            if fate < 0.21:  # the connection breaks
                self.sub.close()
                self.sub = self.subscribe()
                self.replay()
                continue
            if fate < 0.22:  # so slow that the bus drops some
                time.sleep(0.3)
            self.live(frames)


if __name__ == "__main__":
    Client(sys.argv[1], sys.argv[3] if len(sys.argv) > 3 else None).run(int(sys.argv[2]))
    assert not any(name.startswith("onlooker") for name in sys.modules)

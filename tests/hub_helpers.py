"""A hub without sockets, and what each of its connections was sent."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from sinks import Pipe

from chat.protocol.messages import Hello, Up
from chat.protocol.wire import BadLine
from chat.server.hub import Hub
from chat.server.members import Connection

KEY = "sixteen at least"


def hand_in(hub: Hub, connection: Connection, messages: Sequence[Up | BadLine], most: int) -> None:
    """As a peer does: what is said in a row together, at most so many, and all else one by one."""
    left = [*messages]
    while left:
        taken = hub.talk(connection, left, most)
        if not taken:
            assert not isinstance(left[0], BadLine), left[0]
            hub.receive(connection, left[0])
        del left[: taken or 1]


class Hall:
    """A hub and what each of its connections was sent."""

    def __init__(self, **options: Any) -> None:
        tokens = itertools.count(1)
        self.hub = Hub(lambda: f"token{next(tokens)}", **options)
        self.pipes: dict[Connection, Pipe] = {}

    def connect(self, *messages: Up) -> Connection:
        pipe = Pipe(self.hub.delivery)
        connection = pipe.connection
        self.pipes[connection] = pipe
        for message in messages:
            self.hub.receive(connection, message)
        return connection

    def join(self, nick: str) -> Connection:
        connection = self.connect(Hello(nick))
        assert self.take(connection)[0]["type"] == "welcome"
        return connection

    def take(self, connection: Connection) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.pipes[connection].flush().splitlines()]

    def kinds(self, connection: Connection) -> list[str]:
        return [message["type"] for message in self.take(connection)]

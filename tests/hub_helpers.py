"""A hub without sockets, and what each of its connections was sent."""

import itertools
import json
from typing import Any

from sinks import Pipe

from chat.protocol.messages import Hello, Up
from chat.server.hub import Hub
from chat.server.members import Connection

KEY = "sixteen at least"


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

"""A server that says whatever a script lets it say."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

from chat.net.transport import Address

WELCOME: dict[str, Any] = {
    "type": "welcome",
    "nick": "ana",
    "token": "t",
    "cursors": {"inbox": 0, "lobby": 0},
    "limits": {},
}
#: What a file is offered with.
OFFER: dict[str, Any] = {
    "type": "file_offered",
    "log": "inbox",
    "from": "eve",
    "to": "ana",
    "file": 1,
    "name": "x",
    "size": 5,
    "sha256": "ab" * 32,
}

Script = Callable[[dict[str, Any]], list[dict[str, Any]]]


@contextlib.contextmanager
def liar(script: Script, heard: Callable[[dict[str, Any]], object] = lambda _: None) -> Iterator[Address]:
    """A server that answers the first line of each connection as the script says, and then listens.

    Args:
        heard: called with each line that it answers no more.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                first = json.loads(self.rfile.readline() or b"{}")
                self.wfile.write(b"".join([json.dumps(line).encode() + b"\n" for line in script(first)]))
                while line := self.rfile.readline():
                    heard(json.loads(line))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server.server_address[:2]  # type: ignore[misc]
        finally:
            server.shutdown()
            thread.join()


def welcomed(*lines: dict[str, Any]) -> Script:
    """To `hello`, a welcome and these lines; to `attach`, that it is attached."""

    def script(first: dict[str, Any]) -> list[dict[str, Any]]:
        if first.get("type") == "hello":
            return [WELCOME, *lines]
        return [{"type": "attached", "nick": "ana", "cursors": {"inbox": 0, "lobby": 0}}]

    return script

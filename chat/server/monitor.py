"""TcpMonitor: what the kernel knows of a server's connections, as CSV: each second, and once more when they end.

- `at_ns`: CLOCK_MONOTONIC
- `nick`: whose connection it is
- `local_address`: the server's own address, which tells the path when it has several
- the rest: the fields of `chat.net.tcpinfo.TcpInfo`, as this end sees the connection; empty where the kernel is too old
"""

import contextlib
import csv
import logging
import time
from collections.abc import Iterator
from dataclasses import astuple, fields
from typing import TextIO

from chat.net.loop import Loop
from chat.net.tcpinfo import TcpInfo
from chat.net.transport import Transport
from chat.server.server import ChatServer
from chat.words import reason_of

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
COLUMNS = ("at_ns", "nick", "local_address", *(field.name for field in fields(TcpInfo)))


class TcpMonitor:
    """Writes to an open text file, which its owner closes after the server."""

    def __init__(self, loop: Loop, server: ChatServer, file: TextIO) -> None:
        self._loop = loop
        self._server = server
        self._writer = csv.writer(file)
        self._writer.writerow(COLUMNS)
        self._flush = file.flush
        self._has_failed = False
        server.on_end = self._add
        loop.call_later(INTERVAL_S, self._sample)

    def _sample(self) -> None:
        for nick, transport in self._server.connections():
            self._add(nick, transport)
        with self._saying_faults():
            self._flush()
        self._loop.call_later(INTERVAL_S, self._sample)

    def _add(self, nick: str, transport: Transport) -> None:
        info = TcpInfo.of(transport.sock)
        if info is not None:
            address = transport.sock.getsockname()[0]
            with self._saying_faults():
                self._writer.writerow((time.monotonic_ns(), nick, address, *astuple(info)))

    @contextlib.contextmanager
    def _saying_faults(self) -> Iterator[None]:
        """A disk that is full costs rows, not the chat; it is said once."""
        try:
            yield
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                log.warning("--tcp-info cannot be written: %s; rows are missing", reason_of(error))

"""Metrics: what a server does, in numbers, for whoever operates it: `--metrics PORT`, and SIGUSR1.

`GET /metrics` answers in Prometheus' text format (0.0.4), on the loopback address only: who else may read it is for a
proxy to say. The server's own loop answers, so that the numbers belong together.
"""

import contextlib
import os
import resource
import selectors
import time
from bisect import bisect_left
from functools import partial
from typing import NamedTuple

from chat.net.loop import Loop, Timer
from chat.net.transport import Transport, set_up
from chat.server.server import ACCEPT_PAUSE_S, ChatServer, listen

#: Upper bounds of the histogram of turns.
TURN_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
#: Longest request, how long it may take, and how many at a time.
REQUEST_BYTES = 8_192
REQUEST_S = 5.0
READERS = 16


class Metric(NamedTuple):
    """One name with its values."""

    name: str
    kind: str
    help: str
    #: Value by labels, written as `{code="bad_nick"}`; without labels an empty text. By suffix too, for a histogram.
    values: dict[str, float]


class TurnTimes(selectors.DefaultSelector):
    """A selector that measures how long a turn of its loop takes: from one wait to the next."""

    def __init__(self) -> None:
        super().__init__()
        self._counts = [0] * (len(TURN_BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._began_s = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, as any selector."""
        took_s = time.monotonic() - self._began_s
        self._counts[bisect_left(TURN_BOUNDS_S, took_s)] += 1
        self._sum_s += took_s
        ready = super().select(timeout)
        self._began_s = time.monotonic()
        return ready

    def metric(self) -> Metric:
        """A histogram."""
        bounds = [*map(str, TURN_BOUNDS_S), "+Inf"]
        values = {f'_bucket{{le="{bound}"}}': float(sum(self._counts[: i + 1])) for i, bound in enumerate(bounds)}
        values |= {"_sum": self._sum_s, "_count": float(sum(self._counts))}
        return Metric("chat_turn_seconds", "histogram", "Time of a turn of the loop, without its waiting.", values)


def metrics_of(server: ChatServer, turns: TurnTimes | None = None) -> list[Metric]:
    """What there is to be said now."""
    hub, lags = server.hub, server.lags()
    delivery, usage = hub.delivery, resource.getrusage(resource.RUSAGE_SELF)
    refusals = {f'{{code="{code}"}}': float(number) for code, number in sorted(hub.refusals.items())}
    simple = [
        ("chat_sessions", "gauge", "Nicknames present.", len(hub.nicks)),
        ("chat_connections", "gauge", "Open connections.", len(lags)),
        ("chat_strangers", "gauge", "Connections that belong to no session yet.", server.strangers),
        ("chat_rooms", "gauge", "Rooms, the lobby among them.", sum(1 for _ in hub.rooms)),
        ("chat_accepted_total", "counter", "Connections accepted.", server.accepted),
        ("chat_turned_away_total", "counter", "Connections not accepted: too many.", server.turned_away),
        ("chat_lines_total", "counter", "Lines added to logs.", delivery.lines),
        ("chat_deliveries_total", "counter", "Lines of logs sent to somebody.", delivery.deliveries),
        ("chat_skipped_total", "counter", "Lines dropped before a slow reader took them.", delivery.skipped),
        ("chat_sent_bytes_total", "counter", "Bytes handed to the kernel, before TLS.", delivery.sent_bytes),
        ("chat_duplicates_total", "counter", "Second copies of messages.", hub.duplicates),
        ("chat_lag_lines_sum", "gauge", "Lines that all connections have still to be sent.", sum(lags)),
        ("chat_lag_lines_max", "gauge", "The same, of the one that is furthest behind.", max(lags, default=0)),
        ("process_cpu_seconds_total", "counter", "CPU time.", usage.ru_utime + usage.ru_stime),
    ]
    metrics = [Metric(name, kind, text, {"": float(value)}) for name, kind, text, value in simple]
    metrics.append(Metric("chat_refusals_total", "counter", "Requests refused, by code.", refusals))
    with contextlib.suppress(OSError):  # no Linux
        with open("/proc/self/statm", encoding="ascii") as file:
            resident_bytes = float(int(file.read().split()[1]) * resource.getpagesize())
        descriptors = float(len(os.listdir("/proc/self/fd")))
        metrics.append(Metric("process_resident_memory_bytes", "gauge", "Resident memory.", {"": resident_bytes}))
        metrics.append(Metric("process_open_fds", "gauge", "Open descriptors.", {"": descriptors}))
    return [*metrics, turns.metric()] if turns is not None else metrics


def exposition(metrics: list[Metric]) -> str:
    """In Prometheus' text format."""
    lines = []
    for name, kind, text, values in metrics:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {value:.15g}" for labels, value in values.items()]
    return "\n".join(lines) + "\n"


def sentence(metrics: list[Metric]) -> str:
    """On one line, for a log."""
    return ", ".join(
        f"{metric.name}{labels} {value:.15g}" for metric in metrics for labels, value in metric.values.items()
    )


class MetricsPort:
    """Answers HTTP on a port of the loopback address until the process ends.

    Raises:
        AddressError: the port cannot be had.
    """

    def __init__(self, loop: Loop, server: ChatServer, port: int, turns: TurnTimes) -> None:
        self._loop = loop
        self._server = server
        self._turns = turns
        self._listener = listen("127.0.0.1", port, None)
        self._readers: dict[Transport, bytearray] = {}
        self._pause: Timer | None = None
        self._listen()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Free everything."""
        if self._pause is None:
            self._loop.remove(self._listener)
        else:
            self._pause.cancel()
        self._listener.close()
        for reader in [*self._readers]:
            self._drop(reader)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # Gone already; or there is no descriptor left, so that it would be in the queue turn after turn.
            self._loop.remove(self._listener)
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._listen)
            return
        if len(self._readers) >= READERS:
            sock.close()
            return
        set_up(sock)
        reader = Transport(
            self._loop,
            sock,
            on_data=lambda data: self._read(reader, data),
            on_writable=lambda: None,
            on_lost=lambda _reason: self._drop(reader),
        )
        self._readers[reader] = bytearray()
        self._loop.call_later(REQUEST_S, partial(self._drop, reader))

    def _read(self, reader: Transport, data: bytes) -> None:
        request = self._readers[reader]
        request += data
        if b"\r\n\r\n" in request or len(request) > REQUEST_BYTES:
            # Less than what the kernel takes of a new connection at once.
            reader.send(self._answer(bytes(request.split(b"\r\n", 1)[0])))
            reader.finish()

    def _answer(self, request_line: bytes) -> bytes:
        status, text = "404 Not Found", "There is nothing but GET /metrics.\n"
        if request_line.split(b" ")[:2] == [b"GET", b"/metrics"]:
            status, text = "200 OK", exposition(metrics_of(self._server, self._turns))
        body = text.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    def _drop(self, reader: Transport) -> None:
        if self._readers.pop(reader, None) is not None:
            reader.close()

"""What a file transfer costs the talk on the same link, and whether the file arrives: `python tests/bench_files.py`.

Behind an emulated link, four people talk for a while. Then one of them sends a file to another, all connections of
both are cut in the middle of it, more than once, and everybody goes on talking. Fails if the file is not the same in
the end, or if the 99th percentile of the talk's response times is more than 1.5 times that of the talk alone.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from bench_table import Figure, print_table

from chat.client.client import ChatClient
from chat.client.events import Echoed, Event, FileDone, FileFailed, FileOffered
from chat.net.loop import Loop
from loadtests.link.lab import open_lab
from loadtests.link.linkfile import load_profile
from loadtests.link.sandbox.laboratory import run_in_lab

NICKS = ("ana", "ben", "cleo", "dan")
#: Messages per second of each of them.
RATE = 5.0
LIMIT = 1.5
PORT = 5000


class Talk:
    """Four people on one loop, and what they see."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.loop = Loop()
        self.times_ms: list[float] = []
        self.done: dict[str, FileDone] = {}
        self.failed: list[FileFailed] = []
        self.offer: int | None = None
        self._rng = random.Random(1)
        primary = (options.hosts[0], PORT)
        secondary = (options.hosts[1], PORT)
        self.clients = {
            nick: ChatClient(
                self.loop,
                nick,
                primary,
                secondary,
                mode=options.mode[0],
                on_event=lambda event, nick=nick: self._event(nick, event),  # type: ignore[misc]
                congestion="cubic",
            )
            for nick in NICKS
        }

    def begin(self) -> None:
        for client in self.clients.values():
            client.connect()
        ways = 1 if next(iter(self.clients.values())).mode == "single" else 2
        self.until(lambda: all(len(client.tcp_info()) == ways for client in self.clients.values()), 30)
        for nick in NICKS:
            self._say_later(nick)

    def until(self, condition: Callable[[], object], seconds: float) -> None:
        deadline_ns = self.loop.now_ns() + int(seconds * 1e9)
        while not condition() and self.loop.now_ns() < deadline_ns:
            self.loop.run_once(0.1)

    def wait(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def take_times(self) -> list[float]:
        times, self.times_ms = self.times_ms, []
        return times

    def cut(self) -> None:
        """Break every connection of sender and receiver."""
        for nick in NICKS[:2]:
            self.clients[nick].reconnect()

    def _say_later(self, nick: str) -> None:
        def say() -> None:
            if not self.clients[nick].away:
                self.clients[nick].say("x" * 120)
            self._say_later(nick)

        self.loop.call_later(self._rng.expovariate(RATE), say)

    def _event(self, nick: str, event: Event) -> None:
        match event:
            case Echoed():
                self.times_ms.append(event.response_time_ns / 1e6)
            case FileOffered(id=number, outgoing=False):
                self.offer = number
            case FileDone():
                self.done[nick] = event
            case FileFailed():
                self.failed.append(event)


def p99(times_ms: list[float]) -> float:
    return sorted(times_ms)[int(len(times_ms) * 0.99)]


def inside(options: argparse.Namespace) -> int:
    """At the client's side of the link."""
    folder = Path(options.folder)
    source = folder / "file"
    data = random.Random(1).randbytes(options.size)
    source.write_bytes(data)
    talk = Talk(options)
    talk.begin()
    talk.wait(2)
    talk.take_times()
    talk.wait(options.seconds)
    alone = talk.take_times()
    talk.clients["ana"].files.send("ben", source)
    talk.until(lambda: talk.offer is not None, 30)
    assert talk.offer is not None, "the offer did not come"
    talk.clients["ben"].files.accept(talk.offer, folder / "in")
    part = folder / "in" / f".{hashlib.sha256(data).hexdigest()}.part"
    with_file: list[float] = []
    for number in range(options.cuts):
        at = options.size * (number + 1) // (options.cuts + 1)
        talk.until(lambda: talk.failed or talk.done or (part.exists() and part.stat().st_size >= at), 600)  # noqa: B023
        with_file += talk.take_times()
        talk.cut()
        # What is said while there is no connection waits for it, with or without a file.
        talk.until(lambda: not any(client.away or client.pending for client in talk.clients.values()), 30)
        talk.take_times()
    talk.until(lambda: talk.failed or len(talk.done) == 2, 600)
    with_file += talk.take_times()
    result: dict[str, object] = {"alone": alone, "with_file": with_file, "failed": [str(each) for each in talk.failed]}
    if len(talk.done) == 2:
        received = talk.done["ben"]
        same = Path(str(received.path)).read_bytes() == data
        resent = talk.done["ana"].resent_bytes
        result |= {
            "same": same,
            "goodput": received.goodput_bps,
            "resent": resent,
            "seconds": received.duration_ns / 1e9,
        }
    for client in talk.clients.values():
        client.close()
    print(json.dumps(result))
    return 0


def run(options: argparse.Namespace, mode: str) -> bool:
    """Print what one mode does; whether it is within the limits."""
    links = {path: load_profile(options.link) for path in ("primary", "secondary")}
    with tempfile.TemporaryDirectory() as folder, open_lab(links, "auto") as lab:
        serve = [sys.executable, "-m", "chat", "serve", "--host", "0.0.0.0", "--port", str(PORT)]
        serve += ["--no-limits", "--congestion", "cubic"]
        server = lab.server.popen(serve, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        server.stderr.readline()
        threading.Thread(target=server.stderr.read, daemon=True).start()  # its log must not fill the pipe
        words = [f"--{name}={getattr(options, name)}" for name in ("size", "seconds", "cuts")]
        hosts = [lab.addresses[path] for path in links]
        command = [sys.executable, __file__, *words, "--mode", mode, "--folder", folder, "--hosts", *hosts]
        talk = lab.client.popen(command, stdout=subprocess.PIPE, text=True)
        printed, _ = talk.communicate()
        server.terminate()
        server.wait()
    result = json.loads(printed)
    if "same" not in result:
        print(f"{options.link}, {mode}: the file did not arrive: {result['failed']}  MISSED")
        return False
    print(
        f"{options.link}, {mode}: {options.size / 1e6:g} MB in {result['seconds']:.1f} s"
        f" ({result['goodput'] / 1e6:.2f} Mbit/s), {result['resent']} B sent again after {options.cuts} cut(s),"
        f" {'the same file' if result['same'] else 'ANOTHER FILE'}"
    )
    alone_ms, with_file_ms = p99(result["alone"]), p99(result["with_file"])
    print(f"p99 of {len(result['alone'])} messages alone {alone_ms:.1f} ms,", end=" ")
    print(f"of {len(result['with_file'])} with the file {with_file_ms:.1f} ms")
    name = f"{mode}: p99 with the file / alone"
    return print_table([Figure(name, [with_file_ms / alone_ms], LIMIT)]) and bool(result["same"])


def main() -> int:
    """Exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description="What a file transfer costs the talk on the same link.")
    parser.add_argument("--link", default="4g")
    parser.add_argument("--mode", choices=("single", "standby", "redundant"), action="append")
    parser.add_argument("--size", type=int, default=10_000_000, help="bytes")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long they talk alone")
    parser.add_argument("--cuts", type=int, default=2, help="how often all connections of both sides break")
    parser.add_argument("--hosts", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hosts:
        return inside(options)
    modes = options.mode or ["single", "redundant"]
    return run_in_lab(lambda: 0 if min([run(options, mode) for mode in modes]) else 1)


if __name__ == "__main__":
    sys.exit(main())

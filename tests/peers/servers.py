"""The servers that `bench_peers.py` holds beside each other: how each is started on a loopback port, and its version.

Their configurations live in the benchmark's temporary folder. What would slow one down on purpose (flood protection,
look-ups of names, limits) is off.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

#: The server of this name in Python; the one in C is compiled.
LIMIT = Path(__file__).parent / "limit.py"
#: How long a server may take to listen.
START_S = 20.0

NGIRCD = """\
[Global]
Name = irc.bench.local
Info = bench
Listen = 127.0.0.1
Ports = {port}
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxPenaltyTime = 0
PingTimeout = 3600
[Options]
DNS = no
Ident = no
PAM = no
"""
INSPIRCD = """\
<server name="irc.bench.local" description="bench" network="bench">
<admin name="bench" nick="bench" email="bench@bench.local">
<bind address="127.0.0.1" port="{port}" type="clients">
<connect name="all" allow="*" timeout="600" pingfreq="3600" threshold="1000000" commandrate="1000000" fakelag="off"
 recvq="1M" hardsendq="100M" softsendq="100M" localmax="100000" globalmax="100000" limit="100000" maxchans="20"
 resolvehostnames="no">
<performance netbuffersize="65534" somaxconn="4096" softlimit="100000" clonesonconnect="no">
<pid file="{folder}/pid">
"""
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
set_tcp_nodelay true
log_dest none
"""


class Server(NamedTuple):
    """A server under test."""

    name: str
    #: Which of the generator's dialects it speaks.
    dialect: str
    command: Callable[[Path, int], list[str]]
    #: Its version, in one line; None if it is not here.
    version: Callable[[], str | None]
    #: How many may be on their way in when a room is filled: InspIRCd lets people in once a second, ngIRCd's queue is
    #: short. Only the storm measures that; it has the same number for all.
    at_once: int = 64
    #: Connections of each session.
    ways: int = 1


@contextlib.contextmanager
def running(server: Server, folder: Path, core: int) -> Iterator[tuple[int, int]]:
    """Port and process of a server that listens, kept on one core.

    Raises:
        SystemExit: it ended, or does not listen; with what it printed last.
    """
    port = _free_port()
    log = folder / f"{server.name}.log"
    command = ["taskset", "-c", str(core), *server.command(folder, port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(server, port, process, log)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _wait_for(server: Server, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    last = " ".join(log.read_text(errors="replace").splitlines()[-3:])
    sys.exit(f"bench: {server.name} does not listen on port {port}: {last or 'it says nothing'}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()[0]


def _number(pattern: str, *command: str) -> str | None:
    """What the pattern finds in what the command prints first."""
    path = shutil.which(command[0], path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if path is None:
        return None
    found = re.search(pattern, _first_line(path, *command[1:]))
    return found[1] if found else "unknown"


def _configured(text: str, *command: str) -> Callable[[Path, int], list[str]]:
    """The command of a server that is told everything by a file, at `{file}` of the command."""

    def prepare(folder: Path, port: int) -> list[str]:
        file = folder / f"{command[0]}.conf"
        file.write_text(text.format(port=port, folder=folder))
        # Servers that give up root's rights must still be able to read it.
        folder.chmod(0o755)
        return [f"/usr/sbin/{command[0]}", *(word.format(file=file) for word in command[1:])]

    return prepare


def _commit() -> str:
    return _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")


def _ours(*options: str) -> Callable[[Path, int], list[str]]:
    return lambda _folder, port: [sys.executable, "-m", "chat", "serve", "--port", str(port), "--no-limits", *options]


SERVERS = (
    Server("ours", "json", _ours(), _commit),
    Server("ours-redundant", "json", _ours(), _commit, ways=2),
    Server("limit", "json", lambda folder, port: [str(folder / "limit"), str(port)], _commit),
    Server("limit-python", "json", lambda _folder, port: [sys.executable, str(LIMIT), str(port)], _commit),
    Server(
        "ngircd",
        "irc",
        _configured(NGIRCD, "ngircd", "--nodaemon", "--config", "{file}"),
        lambda: _number(r"ngIRCd ([\d.]+)", "ngircd", "--version"),
    ),
    Server(
        "inspircd",
        "irc",
        _configured(INSPIRCD, "inspircd", "--config", "{file}", "--nofork", "--runasroot"),
        lambda: _number(r"InspIRCd-([\d.]+)", "inspircd", "--version"),
        at_once=1024,
    ),
    Server(
        "mosquitto",
        "mqtt",
        _configured(MOSQUITTO, "mosquitto", "-c", "{file}"),
        lambda: _number(r"version ([\d.]+)", "mosquitto", "-h"),
    ),
)

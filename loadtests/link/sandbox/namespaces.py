"""Network namespaces inside the laboratory, and the commands that furnish them."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from loadtests.errors import LinkError
from loadtests.link.sandbox import syscalls

#: The state of a listening socket in /proc/net/tcp (TCP_LISTEN in the kernel's `tcp_states.h`).
_LISTEN = "0A"


class Namespace:
    """One host of the laboratory's network: sockets opened and processes started in it see only its links."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    def create(self) -> None:
        """Make the namespace: loopback up, and no IPv6, whose neighbour discovery would send packets of its own."""
        run_tool(["ip", "netns", "add", self.name])
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6 is quiet already
            self.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
            self.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        self.ip(["link set lo up"])

    def delete(self) -> None:
        """Forget the namespace: it goes, with its interfaces, when the last process and socket in it are gone."""
        run_tool(["ip", "netns", "delete", self.name])

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace: sockets it opens stay there, and so do processes it starts.

        Under gevent nothing inside may switch greenlets: the others would be in here too.
        """
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            syscalls.setns(there.fileno(), syscalls.CLONE_NEWNET)
            try:
                yield
            finally:
                syscalls.setns(home.fileno(), syscalls.CLONE_NEWNET)

    def sysctl(self, name: str, value: str) -> None:
        """Set a parameter under `net/` for this namespace alone."""
        with self.entered():
            Path("/proc/sys", name).write_text(value)

    def listens(self) -> bool:
        """Whether a process in this namespace waits for connections, or has a UDP socket."""
        with self.entered():
            tables = {name: Path("/proc/thread-self/net", name).read_text().splitlines()[1:] for name in ("tcp", "udp")}
            for name in tables:  # a kernel without IPv6 has no such files
                with contextlib.suppress(FileNotFoundError):
                    tables[name] += Path("/proc/thread-self/net", f"{name}6").read_text().splitlines()[1:]
        return bool(tables["udp"]) or any(line.split()[3] == _LISTEN for line in tables["tcp"])

    def popen(self, argv: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a program in this namespace; `options` are those of `subprocess.Popen`."""
        with self.entered():
            return subprocess.Popen(argv, **options)

    def run(self, argv: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
        """Run a program in this namespace to its end; `options` are those of `subprocess.run`."""
        with self.entered():
            return subprocess.run(argv, **options)

    def ip(self, commands: Sequence[str]) -> None:
        """Run several `ip` commands in this namespace, stopping at the first that fails."""
        run_tool(["ip", "-n", self.name, "-batch", "-"], "\n".join(commands))


def run_tool(argv: Sequence[str], lines: str = "") -> str:
    """What `ip` or `tc` prints; raises LinkError with what it complains about."""
    try:
        done = subprocess.run(argv, input=lines, capture_output=True, text=True)
    except FileNotFoundError:
        raise LinkError(missing_tool(argv[0])) from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LinkError(f"{' '.join(argv)}: {said}")
    return done.stdout


def missing_tool(tool: str) -> str:
    """What to do about a command that is not there."""
    return f"the command {tool!r} is missing; on Debian or Ubuntu: apt-get install iproute2"

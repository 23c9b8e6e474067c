"""Restores an interface when whoever impaired it is gone (`python -m loadtests.link.backends.guardian`).

It reads a :class:`Restoration` as one line of JSON from its standard input, answers `ready`, and waits for the end of
its input: the kernel closes a pipe with the process at its other end, after SIGKILL too. Then it restores, and says
what it could not. Signals meant for the others do not end it.
"""

import json
import signal
import sys

import msgspec

from loadtests.errors import LinkError
from loadtests.link.sandbox.namespaces import run_tool


class Restoration(msgspec.Struct):
    """What to undo on an interface, and how it looked before."""

    interface: str
    #: As `qdiscs_of` described them.
    qdiscs: list[str]
    #: `tc` and `ip` commands; each may find that there is nothing to undo.
    commands: list[str]
    #: Devices that must be gone.
    devices: list[str]


def interfaces() -> set[str]:
    """The names of all interfaces."""
    return {link["ifname"] for link in json.loads(run_tool(["ip", "-json", "link", "show"]))}


def qdiscs_of(interface: str) -> list[str]:
    """The qdiscs of an interface, each with its place; raises LinkError: there is no such interface."""
    shown = json.loads(run_tool(["tc", "-json", "qdisc", "show", "dev", interface]))
    return [f"{one['kind']} {one['handle']} {one.get('parent', 'root')}" for one in shown]


def restore(restoration: Restoration) -> str | None:
    """Undo everything; a sentence about what is left, None if nothing is."""
    for command in restoration.commands:
        try:
            run_tool(command.split())
        except LinkError:
            continue  # it was never made, or is gone already; what counts is how things look at the end
    present = interfaces()
    if left := present & set(restoration.devices):
        return f"{', '.join(sorted(left))} could not be deleted"
    if restoration.interface in present and (now := qdiscs_of(restoration.interface)) != restoration.qdiscs:
        return f"{restoration.interface} has the qdiscs {now} now, and had {restoration.qdiscs} before"
    return None


def main() -> int:
    """Exit code 1, and a sentence on standard output, if something is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    restoration = msgspec.json.decode(sys.stdin.buffer.readline(), type=Restoration)
    print("ready", flush=True)
    sys.stdin.buffer.read()
    left = restore(restoration)
    if left:
        print(left)
    return int(left is not None)


if __name__ == "__main__":
    sys.exit(main())

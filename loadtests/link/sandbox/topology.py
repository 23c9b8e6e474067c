"""Names and addresses of the laboratory's network, the same whichever backend impairs it.

::

    client 10.77.1.1 ══ primary ══ 10.77.1.2 server
    client 10.77.2.1 ═ secondary ═ 10.77.2.2 server

Each path has a subnet of its own, so choosing an address is choosing a path.
"""

from loadtests.link.model.profile import PATHS

CLIENT, ROUTER, SERVER = "client", "router", "server"
#: A server in the laboratory listens on both paths; nobody else can reach its namespace.
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104


def client_address(path: str) -> str:
    """The client's IPv4 address on `path`."""
    return f"10.77.{PATHS.index(path) + 1}.1"


def server_address(path: str) -> str:
    """The server's IPv4 address on `path`."""
    return f"10.77.{PATHS.index(path) + 1}.2"

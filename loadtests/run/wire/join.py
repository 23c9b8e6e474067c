"""The join: records of lines that came + packets of the same trial → the records, each with its line's own arrival."""

from ipaddress import IPv4Address

import numpy as np
import pandas as pd

from loadtests.run.wire.arrivals import NEVER, Arrivals, Ints, key_of, latest
from loadtests.samples import PATHS, STAMPS

_WIRE = STAMPS.index("wire")
#: Times of the same moment, mapped from one clock to another in two processes, differ by less.
_CLOCKS_NS = 100_000


def stamped(
    lines: list[pd.DataFrame], connected: pd.DataFrame, arrivals: Arrivals, servers: dict[str, str]
) -> list[pd.DataFrame]:
    """Records of lines, with the time at which the packets say that they could be read, and `exact` 2, where they do.

    Args:
        lines: records of any kinds that say where in its stream a line ends; their first field is whom it came to.
        connected: the connections that the lines came on.
        servers: address of the server → path.
    """
    owners = pd.concat([rows.iloc[:, 0] for rows in lines]).to_numpy(np.int64)
    path, seen_ns, end_byte = (
        pd.concat([rows[field] for rows in lines]).to_numpy(np.int64) for field in ("path", "seen_ns", "end_byte")
    )
    stream = _streams(owners, path, seen_ns, connected, arrivals, servers)
    readable_ns = arrivals.readable_ns(stream, end_byte, seen_ns + _CLOCKS_NS)
    parts = np.split(readable_ns, np.cumsum([len(rows) for rows in lines])[:-1])
    return [
        rows.assign(
            received_ns=rows["received_ns"].where(part == NEVER, part),
            exact=rows["exact"].where(part == NEVER, _WIRE),
        )
        for rows, part in zip(lines, parts, strict=True)
    ]


def _streams(
    owners: Ints, path: Ints, seen_ns: Ints, connected: pd.DataFrame, arrivals: Arrivals, servers: dict[str, str]
) -> Ints:
    """The stream in which each line came: that of its user's last connection on this path; -1 if none was seen."""
    if not len(connected):
        return np.full(len(owners), -1)
    user, own_path, port, up_ns = (connected[field].to_numpy(np.int64) for field in ("user", "path", "port", "at_ns"))
    addresses = np.zeros(len(PATHS), np.int64)
    for address, name in servers.items():
        addresses[PATHS.index(name)] = int(IPv4Address(address))
    stream = arrivals.stream(key_of(addresses[own_path], port), up_ns)
    seen = stream >= 0
    stream = stream[seen]
    # A user's next connection on a path begins when the one before is closed, and all that came on it was read.
    which = latest(
        user[seen] * len(PATHS) + own_path[seen], arrivals.began_ns(stream), owners * len(PATHS) + path, seen_ns
    )
    return np.where(which >= 0, np.append(stream, -1)[which], -1)

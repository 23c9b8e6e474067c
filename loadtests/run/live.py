"""What `chatlab run --web` shows: the socket of Locust's web UI, and what the harness knows beside it."""

import json
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from chat.words import reason_of
from loadtests.errors import HarnessError
from loadtests.link.backends.backend import LinkChange
from loadtests.load.live import FACTS, LINK_COLUMNS
from loadtests.stalls.intervals import Interval


class LiveView:
    """One for a run: its trials follow each other on one page."""

    def __init__(self, listener: socket.socket, folder: Path) -> None:
        #: Of a socket that listens outside of all namespaces of ours.
        self.descriptor = listener.fileno()
        #: Where harness and load processes tell each other what is to be shown.
        self.folder = folder

    def tell(
        self, trial: str, measured: Sequence[pd.DataFrame], changes: Sequence[LinkChange], stalls: Sequence[Interval]
    ) -> None:
        """What is known now: the link as it was measured, how it has changed since, and what the machine did."""
        longest_ms = max((one.end_ns - one.begin_ns for one in stalls), default=0) / 1e6
        told = f"{len(stalls)}, longest {longest_ms:.1f} ms" if stalls else "none"
        rows = [{"path": "this machine", "figure": "stalls of a core", "measured": told}]
        rows += [row for table in measured for row in _measured(table)]
        rows += [
            {
                "path": one.path,
                "direction": one.direction,
                "figure": f"{_ago_s(one.at_ns):.0f} s ago",
                "requested": one.text,
            }
            for one in changes
        ]
        named = [{"name": str(number)} | row for number, row in enumerate(rows)]
        draft = self.folder / f"{FACTS}.new"
        draft.write_text(json.dumps({"trial": trial, "link": named}))
        draft.rename(self.folder / FACTS)


@contextmanager
def looked_at(host: str, port: int) -> Iterator[LiveView]:
    """Listen there for browsers; raises HarnessError: that is not possible."""
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise HarnessError(f"run --web: nobody can listen on {host}:{port}: {reason_of(error)}") from error
    with listener, tempfile.TemporaryDirectory(prefix="chatlab-live-") as folder:
        print(f"live: http://{host}:{listener.getsockname()[1]}/?tab=chat", flush=True)
        yield LiveView(listener, Path(folder))


def _measured(table: pd.DataFrame) -> list[dict[str, str]]:
    rows = table.assign(
        figure=table["metric"],
        requested=table["requested"].map("{:.4g}".format),
        measured=table["measured"].map("{:.4g}".format),
        within=table["within"].map({True: "yes", False: "no"}),
    )
    return [dict(zip(LINK_COLUMNS, row, strict=True)) for row in rows[list(LINK_COLUMNS)].itertuples(index=False)]


def _ago_s(at_ns: int) -> float:
    return (time.monotonic_ns() - at_ns) / 1e9

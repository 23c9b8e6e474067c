"""Hold a run's CSVs against packet captures of the same run: `python tests/ground_truth.py RUN`.

RUN is the directory of a run with captures: `chatlab run SCENARIO --capture`. Every row of `messages.csv` and
`deliveries.csv` is joined, by users and id, with the packet that completed the first copy of its line at the client's
interface, whichever connection that came on; and the retransmissions that tshark counts at both ends with those of
`tcp.csv`. This knows nothing of how the harness makes its stamps: tshark reads packets that dumpcap wrote, and their
JSON says which message they carry. How long messages took from `sent_s` to their first packet is shown beside it: that
is the client's own time.

Exits 1 when rows differ by more than 50 µs at the median, 0.5 ms at the 99th percentile, or one of `stamp` `kernel`
by more than 1 ms; when a row is missing in the capture; or when retransmissions differ by more than 2 %.
"""

import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from loadtests.analysis.read import Run, open_run
from loadtests.analysis.stats import retransmissions

MEDIAN_LIMIT_US, P99_LIMIT_US, KERNEL_LIMIT_US, RETRANSMISSIONS_LIMIT = 50, 500, 1000, 0.02
#: Seen by the sender itself, "out of order" can only be a retransmission: tshark's name for one that comes soon.
_KINDS = ("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order")
_RETRANSMITTED = " or ".join(f"tcp.analysis.{kind}" for kind in _KINDS)
_ADDRESSES = {"client": ("10.77.1.1", "10.77.2.1"), "server": ("10.77.1.2", "10.77.2.2")}


class Segment(NamedTuple):
    """One TCP segment with data."""

    time_s: float
    stream: int
    source: str
    sequence: int
    payload: bytes


def tshark(file: Path, *options: str) -> list[list[str]]:
    """The fields that tshark prints, a list for each packet."""
    command = ["tshark", "-r", str(file), "-o", "tcp.relative_sequence_numbers:true", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in printed.splitlines()]


def segments(file: Path) -> list[Segment]:
    """In the order of time, in which a capture of several interfaces is not."""
    names = ("frame.time_epoch", "tcp.stream", "ip.src", "tcp.seq", "tcp.payload")
    options = [word for name in names for word in ("-e", name)]
    found = [
        Segment(float(time_s), int(stream), source, int(sequence), bytes.fromhex(payload))
        for time_s, stream, source, sequence, payload in tshark(file, "-Y", "tcp.len > 0", "-T", "fields", *options)
    ]
    return sorted(found, key=lambda segment: segment.time_s)


def lines(file: Path) -> Iterator[tuple[int, str, float, dict[str, Any]]]:
    """Stream, source, time and content of each line, as TCP hands it over: in order, when its last byte is there.

    A line that is sent has the time of its first transmission, since a retransmission repeats bytes known already.
    """
    expected: dict[tuple[int, str], int] = defaultdict(lambda: 1)
    early: dict[tuple[int, str], dict[int, bytes]] = defaultdict(dict)
    unfinished: dict[tuple[int, str], bytes] = defaultdict(bytes)
    for segment in segments(file):
        way = (segment.stream, segment.source)
        early[way].setdefault(segment.sequence, segment.payload)
        while ready := [start for start in early[way] if start <= expected[way]]:
            start = min(ready)
            payload = early[way].pop(start)
            unfinished[way] += payload[expected[way] - start :]
            expected[way] = max(expected[way], start + len(payload))
        *whole, unfinished[way] = unfinished[way].split(b"\n")
        for line in whole:
            yield segment.stream, segment.source, segment.time_s, json.loads(line)


class Captured(NamedTuple):
    """Epoch times of a capture."""

    #: User and id → first copy sent; receiver, sender and id → first copy that came.
    sent_s: dict[tuple[int, int], float]
    came_s: dict[tuple[int, int, int], float]


def captured_times(file: Path) -> Captured:
    captured = Captured({}, {})
    nicks: dict[int, str] = {}  # stream → who
    by_token: dict[str, str] = {}
    for stream, _, time_s, line in lines(file):
        match line:
            case {"type": "welcome", "nick": nick, "token": token}:
                nicks[stream] = by_token[token] = nick
            case {"type": "attach", "token": token}:
                nicks[stream] = by_token[token]
            case {"type": "say" | "tell", "id": number}:
                captured.sent_s.setdefault((user(nicks[stream]), number), time_s)
            case {"type": "said" | "told", "from": sender, "id": number}:
                captured.came_s.setdefault((user(nicks[stream]), user(sender), number), time_s)
    return captured


def user(nick: str) -> int:
    return int(nick.rpartition("-")[2])


def compare(run: Run, trial: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    messages, deliveries = (rows[rows["trial"] == trial] for rows in (run.table("messages"), run.table("deliveries")))
    start = next(one.start for one in run.manifest.trials if one.number == trial)
    assert start is not None, "its load began"
    start_s = start.epoch_ns / 1e9
    captured = captured_times(folder / "client.pcapng")
    echoes = messages.dropna(subset="echoed_s").assign(receiver=lambda rows: rows["user"])
    rows = pd.concat(
        [
            echoes[["receiver", "user", "id", "stamp"]].assign(came_s=echoes["echoed_s"] + start_s),
            deliveries[["receiver", "sender", "id", "stamp"]]
            .set_axis(["receiver", "user", "id", "stamp"], axis=1)
            .assign(came_s=deliveries["received_s"] + start_s),
        ]
    )
    keys = zip(rows["receiver"], rows["user"], rows["id"], strict=True)
    rows["captured_s"] = [captured.came_s.get(key, math.nan) for key in keys]
    off_us = ((rows["came_s"] - rows["captured_s"]) * 1e6).abs()
    sent = [captured.sent_s.get(key, math.nan) for key in zip(messages["user"], messages["id"], strict=True)]
    own_us = (pd.Series(sent, messages.index) - start_s - messages["sent_s"]) * 1e6
    counted = retransmissions(run)
    on_wire = 0
    for host, addresses in _ADDRESSES.items():
        own = " or ".join(f"ip.src == {address}" for address in addresses)
        on_wire += len(tshark(folder / f"{host}.pcapng", "-Y", f"({own}) and ({_RETRANSMITTED})"))
    return {
        "variant": messages["variant"].iloc[0],
        "rows": len(rows),
        "joined": int(off_us.notna().sum()),
        "wire": int((rows["stamp"] == "wire").sum()),
        "off by, median µs": off_us.median(),
        "p99 µs": off_us.quantile(0.99),
        "max µs": off_us.max(),
        "of `kernel` max µs": off_us[rows["stamp"] == "kernel"].max(),
        "sent → packet, median µs": own_us.median(),
        "p99 µs ": own_us.quantile(0.99),
        "retransmissions in tcp.csv": int(counted[counted["trial"] == trial]["retransmissions"].sum()),
        "counted by tshark": on_wire,
    }


def main() -> int:
    run = open_run(sys.argv[1])
    folders = sorted((run.path / "locust").iterdir())
    table = pd.DataFrame([compare(run, int(folder.name.removeprefix("trial-")), folder) for folder in folders])
    print(table.to_string(index=False, float_format="%.0f"))
    close = (table["off by, median µs"] <= MEDIAN_LIMIT_US) & (table["p99 µs"] <= P99_LIMIT_US)
    own = ~(table["of `kernel` max µs"] > KERNEL_LIMIT_US)
    gap = (table["retransmissions in tcp.csv"] - table["counted by tshark"]).abs()
    counted = gap <= RETRANSMISSIONS_LIMIT * table["counted by tshark"]
    whole = table["rows"] == table["joined"]
    return 0 if (close & own & counted & whole).all() else 1


if __name__ == "__main__":
    sys.exit(main())

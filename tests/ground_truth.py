"""Hold a run's CSVs against packet captures of the same run: `python tests/ground_truth.py RUN`.

RUN is the directory of a run with captures: `chatlab run SCENARIO --capture`. For each message, joined by user and id,
the time from its first packet to the packet that completes its echo, at the client's interface, is compared with
`service_time_ms`; and the retransmissions that tshark counts at both ends with those of `tcp.csv`. Left out, and
counted as held back, are messages that the sender's own TCP kept for more than a millisecond before they went out (its
window was full): of that wait packets know nothing. Exits 1 when they differ by more than 50 µs at the median, 0.5 ms
at the 99th percentile, or 2 % of the retransmissions.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from loadtests.analysis.read import Run, open_run
from loadtests.analysis.stats import retransmissions

MEDIAN_LIMIT_MS, P99_LIMIT_MS, RETRANSMISSIONS_LIMIT = 0.05, 0.5, 0.02
HELD_MS = 1.0
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


def segments(file: Path) -> Iterator[Segment]:
    names = ("frame.time_epoch", "tcp.stream", "ip.src", "tcp.seq", "tcp.payload")
    options = [word for name in names for word in ("-e", name)]
    for time_s, stream, source, sequence, payload in tshark(file, "-Y", "tcp.len > 0", "-T", "fields", *options):
        yield Segment(float(time_s), int(stream), source, int(sequence), bytes.fromhex(payload))


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


def captured_times(file: Path) -> pd.DataFrame:
    """Of each message of a `user` and `id`: when its first copy was sent, and `captured_ms` until its first echo."""
    sent: dict[tuple[int, int], float] = {}
    echoed: dict[tuple[int, int], float] = {}
    nicks: dict[int, str] = {}  # stream → who
    by_token: dict[str, str] = {}
    for stream, _, time_s, line in lines(file):
        match line:
            case {"type": "welcome", "nick": nick, "token": token}:
                nicks[stream] = by_token[token] = nick
            case {"type": "attach", "token": token}:
                nicks[stream] = by_token[token]
            case {"type": "say" | "tell", "id": number}:
                note_first(sent, (user(nicks[stream]), number), time_s)
            case {"type": "said" | "told", "from": sender, "id": number} if sender == nicks.get(stream):
                note_first(echoed, (user(sender), number), time_s)
    rows = [(*key, sent[key], (echoed[key] - sent[key]) * 1000) for key in sent if key in echoed]
    return pd.DataFrame(rows, columns=["user", "id", "sent_epoch_s", "captured_ms"])


def note_first(times_s: dict[tuple[int, int], float], key: tuple[int, int], time_s: float) -> None:
    """A capture of several interfaces is not in the order of time."""
    times_s[key] = min(times_s.get(key, time_s), time_s)


def user(nick: str) -> int:
    return int(nick.rpartition("-")[2])


def compare(run: Run, trial: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    messages = run.table("messages")
    messages = messages[messages["trial"] == trial].dropna(subset="service_time_ms")
    both = messages.merge(captured_times(folder / "client.pcapng"), on=["user", "id"])
    start = next(one["start"] for one in run.info["trials"] if one["number"] == trial)
    held_ms = (both["sent_epoch_s"] - both["sent_s"] - start["epoch_ns"] / 1e9) * 1000
    held = held_ms > HELD_MS
    difference_ms = (both["service_time_ms"] - both["captured_ms"])[~held].abs()
    counted = retransmissions(run)
    in_csv = int(counted[counted["trial"] == trial]["retransmissions"].sum())
    on_wire = 0
    for host, addresses in _ADDRESSES.items():
        own = " or ".join(f"ip.src == {address}" for address in addresses)
        on_wire += len(tshark(folder / f"{host}.pcapng", "-Y", f"({own}) and ({_RETRANSMITTED})"))
    return {
        "variant": messages["variant"].iloc[0],
        "messages": len(messages),
        "joined": len(both),
        "held back": int(held.sum()),
        "median |difference| µs": difference_ms.median() * 1000,
        "p99 |difference| µs": difference_ms.quantile(0.99) * 1000,
        "retransmissions in tcp.csv": in_csv,
        "counted by tshark": on_wire,
    }


def main() -> int:
    run = open_run(sys.argv[1])
    folders = sorted((run.path / "locust").iterdir())
    table = pd.DataFrame([compare(run, int(folder.name.removeprefix("trial-")), folder) for folder in folders])
    print(table.to_string(index=False, float_format="%.0f"))
    close = (table["median |difference| µs"] <= MEDIAN_LIMIT_MS * 1000) & (
        table["p99 |difference| µs"] <= P99_LIMIT_MS * 1000
    )
    gap = (table["retransmissions in tcp.csv"] - table["counted by tshark"]).abs()
    counted = gap <= RETRANSMISSIONS_LIMIT * table["counted by tshark"]
    whole = table["messages"] == table["joined"]
    return 0 if (close & counted & whole).all() else 1


if __name__ == "__main__":
    sys.exit(main())

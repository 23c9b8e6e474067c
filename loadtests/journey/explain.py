"""The way of one message of a run, in words and as a figure beside its tables."""

import contextlib
import csv
from pathlib import Path

from loadtests.errors import HarnessError
from loadtests.journey.figure import draw
from loadtests.journey.journey import Crossing, journey, nickname
from loadtests.journey.packets import read_capture
from loadtests.run.manifest import Manifest

#: Of a handshake, and its version.
_TLS_RECORD = b"\x16\x03"


def explain(run: Path, trial: int, user: int, message_id: int) -> str:
    """The way in words, and where the figure is.

    Raises HarnessError: there is no such message, or the trial has no packet capture.
    """
    record = next(record for record in Manifest.read(run).trials if record.number == trial)
    row = _row(run, trial, user, message_id)
    folder = run / "locust" / f"trial-{trial:03}"
    client, server = (read_capture(folder / f"{host}.pcapng") for host in ("client", "server"))
    nick = nickname(client, server, user)
    if nick is None and any(segment.payload.startswith(_TLS_RECORD) for segment in client):
        raise HarnessError(f"trial {trial}: its packets are those of TLS, and cannot be read")
    if record.start is None or nick is None:
        raise HarnessError(f"trial {trial}: the capture knows nothing of user {user}")
    start_s = record.start.epoch_ns / 1e9
    moments = {"intended": "intended_s", "written": "sent_s", "echoed": "echoed_s"}
    times_s = {name: start_s + float(row[column]) for name, column in moments.items() if row[column]}
    crossings = journey(client, server, nick, message_id)
    file = run / f"trial-{trial:03}-message-{user}-{message_id}.svg"
    response = f"{float(row['response_time_ms']):.1f} ms" if row["response_time_ms"] else row["outcome"]
    title = f"trial {trial}, {record.name}: message {message_id} of user {user}, {response}"
    draw(crossings, nick, times_s, times_s["intended"], title, file)
    paths = {address: path for path, address in record.addresses.items()}
    events = [(at_s, name) for name, at_s in times_s.items()] + [
        (one.left_s, _words(one, nick, paths)) for one in crossings
    ]
    lines = [f"{(at_s - times_s['intended']) * 1e3:9.2f} ms  {words}" for at_s, words in sorted(events)]
    return "\n".join([title, *lines, f"figure: {file}"])


def _row(run: Path, trial: int, user: int, message_id: int) -> dict[str, str]:
    wanted = (str(trial), str(user), str(message_id))
    with contextlib.suppress(FileNotFoundError), (run / "messages.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            if (row["trial"], row["user"], row["id"]) == wanted:
                return row
    raise HarnessError(f"{run}: messages.csv has no message {message_id} of user {user} in trial {trial}")


def _words(one: Crossing, sender: str, paths: dict[str, str]) -> str:
    whose = "" if one.nick == sender else f" for {one.nick}"
    verb, path = "retransmitted" if one.is_repeated else "sent", paths.get(one.address, one.address)
    what = f"{verb} {one.way} on the {path} path{whose}"
    return (
        f"{what}: lost"
        if one.arrived_s is None
        else f"{what}: arrived after {(one.arrived_s - one.left_s) * 1e3:.2f} ms"
    )

"""Binary records of the load processes → rows of the CSV tables (see `loadtests.samples` for both)."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from loadtests.load.recorder import clock
from loadtests.run.disturbed import PACKET, UNDISTURBED, Carried, Disturbances
from loadtests.run.manifest import LoadProcess, Start
from loadtests.run.wire.arrivals import Arrivals
from loadtests.run.wire.join import stamped
from loadtests.run.wire.watch import watched_packets
from loadtests.samples import (
    CONNECTED,
    DELIVERED,
    DELIVERED_AGAIN,
    ECHOED,
    ECHOED_AGAIN,
    FILE,
    KINDS,
    LEFT,
    OUTCOMES,
    PATHS,
    PAUSE,
    PROCESS,
    REFUSED,
    SENT,
    STAMPS,
    TABLES,
    TCP,
    USERS_PER_WORKER,
    Record,
)

#: Records of lines that came, as they are read: first copies, and others.
_LINES = (ECHOED, ECHOED_AGAIN, DELIVERED, DELIVERED_AGAIN)
#: Fields that are times on the clock of the machine where they were noted.
_MOMENTS = {"intended_ns", "sent_ns", "received_ns", "seen_ns", "at_ns", "let_in_ns"}


def read_records(folder: Path, record: Record) -> pd.DataFrame:
    """All records of one type that any process wrote; a last one cut short by a kill is left out.

    Times of another machine are moved so that its first process began when the load began here: good enough to tell
    what happened when, never to compare two machines' times.
    """
    dtype = _dtype(record)
    return pd.DataFrame(np.concatenate([np.empty(0, dtype), *_parts(folder, record).values()]))


def processes(folder: Path) -> list[LoadProcess]:
    """The load processes of a trial: without the master, if there are workers."""
    starts = list(_starts(folder).values())
    return [start for start in starts if start.worker is not None] or starts


def started(folder: Path) -> Start | None:
    """When the load began, on this machine's clocks; None if it never did."""
    here = clock()
    starts = [start for start in _starts(folder).values() if start.clock == here]
    first = min(starts, key=lambda start: start.monotonic_ns, default=None)
    return None if first is None else Start(first.monotonic_ns, first.epoch_ns)


def start_ns_of(folder: Path) -> int:
    """Second 0 of the tables (CLOCK_MONOTONIC); 0 if the load never began."""
    start = started(folder)
    return start.monotonic_ns if start else 0


def carried(file: Path) -> Carried | None:
    """What the emulator wrote into this file; None if it wrote none, as the kernel carried the packets."""
    return Carried(np.fromfile(file, PACKET)) if file.exists() else None


def tables_of(
    folder: Path, trial: int, warmup_s: float, paths: dict[str, str], disturbances: Disturbances = UNDISTURBED
) -> dict[str, pd.DataFrame]:
    """The tables of one trial, columns as in `TABLES`.

    Args:
        folder: where the processes of this trial wrote their records.
        warmup_s: messages intended earlier are marked.
        paths: server address → path, for the server's side of `tcp` and for packets.
        disturbances: what of the trial the machine disturbed.
    """
    start_ns = start_ns_of(folder)
    sent = read_records(folder, SENT)
    sent["disturbed"] = disturbances.messages(sent["intended_ns"].to_numpy(), sent["sent_ns"].to_numpy())
    echoed, echoed_again, delivered, delivered_again = _lines(folder, paths)
    deliveries = _deliveries(
        folder, _arrivals(delivered, delivered_again, ["receiver", "sender", "id"], disturbances), sent, start_ns
    )
    echoes = _arrivals(echoed, echoed_again, ["user", "id"], disturbances)
    frames = {
        "messages": _messages(folder, sent, echoes, deliveries, start_ns, warmup_s, disturbances),
        "deliveries": deliveries,
        "tcp": _tcp(folder, start_ns, paths),
        "clients": _clients(folder, start_ns),
        "files": _files(folder, start_ns, disturbances),
        "pauses": _pauses(folder, start_ns),
        "machine": _load_processes(folder, start_ns),
    }
    return {name: frame.assign(trial=trial)[list(TABLES[name])] for name, frame in frames.items()}


def _messages(
    folder: Path,
    sent: pd.DataFrame,
    echoes: pd.DataFrame,
    deliveries: pd.DataFrame,
    start_ns: int,
    warmup_s: float,
    disturbances: Disturbances,
) -> pd.DataFrame:
    refused = read_records(folder, REFUSED).assign(refused=True)
    delays = deliveries.groupby(["sender", "id"])["one_way_delay_ms"].agg(["min", "max", "count", "size"])
    is_whole = delays.pop("count") == delays.pop("size")  # not if a receiver is on another machine
    delays = delays[is_whole]
    fan_out = delays.set_axis(["first_delivery_ms", "last_delivery_ms"], axis=1).rename_axis(["user", "id"])
    rows = sent
    for facts in (echoes.drop(columns="intended_ns"), refused, fan_out.reset_index()):
        rows = rows.merge(facts, on=["user", "id"], how="left")
    answered = rows["received_ns"].notna()
    unanswered = disturbances.unanswered(rows["intended_ns"].to_numpy())
    is_late = np.where(answered, rows["is_late"].eq(True), unanswered)
    rows["disturbed"] = (rows["disturbed"] | is_late).astype(int)
    rows["outcome"] = np.where(answered, "echoed", np.where(rows["refused"].notna(), "refused", "lost"))
    rows["kind"] = _names(rows["kind"], KINDS)
    for column, source in (("intended_s", "intended_ns"), ("sent_s", "sent_ns"), ("echoed_s", "received_ns")):
        rows[column] = (rows[source] - start_ns) / 1e9
    rows["response_time_ms"] = (rows["received_ns"] - rows["intended_ns"]) / 1e6
    rows["service_time_ms"] = (rows["received_ns"] - rows["sent_ns"]) / 1e6
    rows["send_lag_ms"] = (rows["sent_ns"] - rows["intended_ns"]) / 1e6
    rows["second_copy_lag_ms"] = (rows["again_ns"] - rows["received_ns"]) / 1e6
    rows["seen_lag_ms"] = (rows["seen_ns"] - rows["received_ns"]) / 1e6
    rows["warmup"] = (rows["intended_s"] < warmup_s).astype(int)
    return rows.sort_values("intended_ns")


def _deliveries(folder: Path, delivered: pd.DataFrame, sent: pd.DataFrame, start_ns: int) -> pd.DataFrame:
    rows = delivered.merge(
        sent[["user", "id", "sent_ns", "disturbed"]], left_on=["sender", "id"], right_on=["user", "id"], how="left"
    )
    rows["kind"] = _names(rows["kind"], KINDS)
    rows["received_s"] = (rows["received_ns"] - start_ns) / 1e9
    # What another machine sent may have no row here.
    rows["disturbed"] = (rows["disturbed"].eq(True) | rows["is_late"]).astype(int)
    clocks = {process.worker or 0: process.clock for process in processes(folder)}
    sender_clock, receiver_clock = ((rows[user] // USERS_PER_WORKER).map(clocks) for user in ("sender", "receiver"))
    delays_ms = (rows["received_ns"] - rows["sent_ns"]) / 1e6
    rows["one_way_delay_ms"] = delays_ms.where(sender_clock == receiver_clock)
    return rows.sort_values("received_ns")


def _lines(folder: Path, servers: dict[str, str]) -> list[pd.DataFrame]:
    """The records of `_LINES`, with the time of the packets where those were captured."""
    lines = [read_records(folder, record) for record in _LINES]
    captured = watched_packets(folder)
    if captured is None:
        return lines
    watched, packets = captured
    arrivals = Arrivals(packets, repeats_are_doubtful=watched.corrupts)
    return stamped(lines, read_records(folder, CONNECTED), arrivals, servers)


def _arrivals(
    read_first: pd.DataFrame, again: pd.DataFrame, key: list[str], disturbances: Disturbances
) -> pd.DataFrame:
    """The records `read_first`, with path, stamp and time of the copy that arrived first; `again_ns` is the other's.

    `is_late` says whether the machine disturbed what came first.

    Copies are recorded in the order in which they were read; a connection that is read later may have had its copy
    earlier.
    """
    what_arrived = [*key, "path", "exact", "received_ns"]
    copies = pd.concat([read_first, again])[what_arrived].sort_values("received_ns")
    copies = copies.drop_duplicates([*key, "path"])
    others = copies[copies.duplicated(key)].drop(columns="path")
    others = others.rename(columns={"received_ns": "again_ns", "exact": "again_exact"})
    rows = read_first[read_first.columns.difference(what_arrived[len(key) :])]
    rows = rows.merge(copies.drop_duplicates(key), on=key, how="left").merge(others, on=key, how="left")
    rows["is_late"] = disturbances.arrivals(rows["path"].to_numpy(), rows["received_ns"].to_numpy(np.int64))
    rows["path"] = _names(rows["path"], PATHS)
    # An upper bound for the other copy is one for the first: that may have been the other.
    rows["stamp"] = _names(
        rows["exact"].where(rows["again_exact"] != STAMPS.index("read"), STAMPS.index("read")), STAMPS
    )
    return rows


def _files(folder: Path, start_ns: int, disturbances: Disturbances) -> pd.DataFrame:
    rows = read_records(folder, FILE)
    sizes_bytes = rows["size_bytes"].to_numpy(np.int64)
    rows["disturbed"] = disturbances.files(rows["begun_ns"].to_numpy(), sizes_bytes).astype(int)
    rows["outcome"] = _names(rows["outcome"], OUTCOMES)
    rows["started_s"] = (rows["begun_ns"] - start_ns) / 1e9
    duration_s = (rows["ended_ns"] - rows["begun_ns"]) / 1e9
    rows["duration_ms"] = duration_s * 1e3
    rows["goodput_bps"] = (rows["size_bytes"] * 8 / duration_s).where(rows["outcome"] == "done")
    return rows.sort_values("started_s")


def _clients(folder: Path, start_ns: int) -> pd.DataFrame:
    rows = read_records(folder, LEFT)
    was_let_in = rows["registration_ns"] > 0
    return rows.assign(
        registration_ms=(rows["registration_ns"] / 1e6).where(was_let_in),
        let_in_s=((rows["let_in_ns"] - start_ns) / 1e9).where(was_let_in),
    )


def _pauses(folder: Path, start_ns: int) -> pd.DataFrame:
    rows = _by_process(folder, PAUSE)
    return rows.assign(time_s=(rows["at_ns"] - start_ns) / 1e9, duration_ms=rows["duration_ns"] / 1e6)


def _load_processes(folder: Path, start_ns: int) -> pd.DataFrame:
    """Rows of `machine.csv` for the load processes, which sample themselves, wherever they are."""
    rows = _by_process(folder, PROCESS)
    used = rows.groupby("process")[["at_ns", "cpu_ns", "run_delay_ns"]].diff()
    rows["cpu_percent"] = used["cpu_ns"] / used["at_ns"] * 100
    rows["run_delay_ms"] = used["run_delay_ns"] / 1e6
    rows["time_s"] = (rows["at_ns"] - start_ns) / 1e9
    of_machine = [name for name in TABLES["machine"] if name not in rows]  # what only the whole machine has
    return rows.dropna(subset="cpu_percent").assign(**dict.fromkeys(of_machine, np.nan))


def _tcp(folder: Path, start_ns: int, paths: dict[str, str]) -> pd.DataFrame:
    clients = read_records(folder, TCP)
    clients["path"] = _names(clients["path"], PATHS)
    clients["side"] = "client"
    sides = [clients]
    server_file = folder / "server-tcp.csv"
    if server_file.exists():
        # As text: some nicknames, such as 523e-4, would pass for numbers.
        server = pd.read_csv(server_file, dtype={"nick": str, "local_address": str})
        server["path"] = server["local_address"].map(paths)
        server["user"] = pd.to_numeric(server["nick"].str.split("-").str[-1], errors="coerce").astype("Int64")
        server["side"] = "server"
        sides.append(server)
    rows = pd.concat(sides, ignore_index=True)
    rows["time_s"] = (rows["at_ns"] - start_ns) / 1e9
    for column, source in (("rtt_ms", "rtt_us"), ("rttvar_ms", "rttvar_us"), ("min_rtt_ms", "min_rtt_us")):
        rows[column] = rows[source] / 1e3
    rows["delivery_rate_bps"] = rows["delivery_rate_Bps"] * 8
    return rows.rename(
        columns={
            "total_retrans": "retransmissions",
            "bytes_retrans": "retransmitted_bytes",
            "bytes_sent": "sent_bytes",
            "segs_out": "segments_out",
            "lost": "lost_segments",
            "snd_cwnd": "cwnd_segments",
        }
    ).sort_values("time_s")


def _names(codes: "pd.Series[int]", names: tuple[str, ...]) -> "pd.Series[str]":
    return codes.map(dict(enumerate(names)))


def _dtype(record: Record) -> "np.dtype[np.void]":
    return np.dtype(record.numpy_fields)


def _parts(folder: Path, record: Record) -> dict[str, "np.ndarray[Any, np.dtype[np.void]]"]:
    """File stem of a process → its records."""
    dtype = _dtype(record)
    shifts_ns = _clock_shifts_ns(folder)
    parts = {}
    for file in sorted(folder.glob(f"*.{record.name}")):
        data = file.read_bytes()
        part = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
        if shift_ns := shifts_ns.get(file.stem):
            part = part.copy()
            for field in _MOMENTS & set(record.fields):
                part[field] += shift_ns
        parts[file.stem] = part
    return parts


def _by_process(folder: Path, record: Record) -> pd.DataFrame:
    """Records with the column `process`: `load`, or `load-N` for worker N."""
    workers = {stem: start.worker for stem, start in _starts(folder).items()}
    names = {stem: "load" if worker is None else f"load-{worker}" for stem, worker in workers.items()}
    frames = [pd.DataFrame(part).assign(process=names[stem]) for stem, part in _parts(folder, record).items()]
    return pd.concat([pd.DataFrame(np.empty(0, _dtype(record))).assign(process=""), *frames], ignore_index=True)


def _starts(folder: Path) -> dict[str, LoadProcess]:
    """File stem of each process → who it is, and when its load began."""
    files = sorted(folder.glob("*.start"))
    return {file.stem: msgspec.json.decode(file.read_bytes(), type=LoadProcess) for file in files}


def _clock_shifts_ns(folder: Path) -> dict[str, int]:
    """File stem of each process on another machine → what to add to its times."""
    starts = _starts(folder)
    here, zero_ns = clock(), start_ns_of(folder)
    first_ns: dict[str, int] = {}
    for start in sorted(starts.values(), key=lambda start: start.monotonic_ns):
        first_ns.setdefault(start.clock, start.monotonic_ns)
    return {stem: zero_ns - first_ns[start.clock] for stem, start in starts.items() if start.clock != here}

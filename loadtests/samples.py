"""What is recorded: the binary records of a load process, and the CSV tables made of them.

A load process only appends facts (a message was sent, its echo came, a copy was delivered); what follows from
them (response time, lost or not) is derived when the tables are made. So nothing is lost when a process dies.
"""

import struct
from typing import NamedTuple

#: Raised whenever a column changes its name or meaning.
SCHEMA_VERSION = 5

#: Worker N of a load on many processes numbers its users from N times this.
USERS_PER_WORKER = 100_000

#: Ids of messages that a client did not take begin here: no client gets so far by itself in a run.
FIRST_UNTAKEN_ID = 1_000_000_000

KINDS = ("say", "tell")
PATHS = ("primary", "secondary")
#: Whose time a row has; the first two are `exact` 0 and 1 of a record.
STAMPS = ("read", "kernel", "wire")
OUTCOMES = ("done", "rejected", "cancelled", "failed")
_NUMPY = {"B": "u1", "H": "<u2", "I": "<u4", "q": "<i8", "Q": "<u8"}


class Record(NamedTuple):
    """A fixed binary record: field name → struct code. Times are CLOCK_MONOTONIC in ns."""

    name: str
    fields: dict[str, str]

    @property
    def packer(self) -> struct.Struct:
        return struct.Struct("<" + "".join(self.fields.values()))

    @property
    def numpy_fields(self) -> list[tuple[str, str]]:
        """What `numpy.dtype` takes."""
        return [(name, _NUMPY[code]) for name, code in self.fields.items()]


#: A message was handed to the client, or would have been, had it taken it.
SENT = Record("sent", {"user": "I", "id": "I", "kind": "B", "size_bytes": "I", "intended_ns": "q", "sent_ns": "q"})
#: A connection of a user is in use; `port` is its own, by which packets of it are known.
CONNECTED = Record("connected", {"user": "I", "path": "B", "port": "H", "at_ns": "q"})
#: What is known of a line that came: whether the stamp is its own, when it came and was read, and how many bytes of
#: its connection's stream end with it.
_LINE = {"path": "B", "exact": "B", "received_ns": "q", "seen_ns": "q", "end_byte": "Q"}
#: The sender's own message came back: the acknowledgement.
#: It repeats the intended time, so that response times can be followed live from this file alone.
ECHOED = Record("echoed", {"user": "I", "id": "I", "intended_ns": "q"} | _LINE)
#: Another copy of an echo was read, over the other connection.
ECHOED_AGAIN = Record("echoed_again", {"user": "I", "id": "I"} | _LINE)
#: The server refused a message.
REFUSED = Record("refused", {"user": "I", "id": "I"})
#: Somebody else's message arrived.
DELIVERED = Record("delivered", {"receiver": "I", "sender": "I", "id": "I", "kind": "B"} | _LINE)
#: Another copy of it was read, over the other connection.
DELIVERED_AGAIN = Record("delivered_again", {"receiver": "I", "sender": "I", "id": "I"} | _LINE)
#: TCP_INFO of one of the client's connections.
TCP = Record(
    "tcp",
    {
        "user": "I",
        "path": "B",
        "at_ns": "q",
        "rtt_us": "I",
        "rttvar_us": "I",
        "min_rtt_us": "I",
        "total_retrans": "I",
        "bytes_retrans": "Q",
        "bytes_sent": "Q",
        "segs_out": "I",
        "lost": "I",
        "reordering": "I",
        "snd_cwnd": "I",
        "delivery_rate_Bps": "Q",
    },
)
#: What a client counted, written when it leaves; and how long its first registration took, and when it was in its room:
#: 0 if it was not let in.
LEFT = Record(
    "left",
    {
        "user": "I",
        "deliveries": "I",
        "copies_dropped": "I",
        "path_failures": "I",
        "registration_ns": "Q",
        "let_in_ns": "q",
    },
)
#: A file that was sent is over; its times count at the sender.
FILE = Record(
    "file",
    {
        "sender": "I",
        "receiver": "I",
        "size_bytes": "Q",
        "begun_ns": "q",
        "ended_ns": "q",
        "resent_bytes": "Q",
        "outcome": "B",
    },
)
#: A garbage collection stopped the load process.
PAUSE = Record("pause", {"at_ns": "q", "duration_ns": "q", "generation": "B"})
#: What a load process has used of its machine so far; its CPU time is also that of a process that hangs.
PROCESS = Record("process", {"at_ns": "q", "cpu_ns": "q", "run_delay_ns": "q", "rss_bytes": "Q"})

RECORDS = (
    SENT,
    CONNECTED,
    ECHOED,
    ECHOED_AGAIN,
    REFUSED,
    DELIVERED,
    DELIVERED_AGAIN,
    TCP,
    LEFT,
    FILE,
    PAUSE,
    PROCESS,
)

_TRIAL = {"trial": "number of the trial, as in `run.json`"}

#: CSV table → column → meaning. `results/README.md` is made from this.
TABLES: dict[str, dict[str, str]] = {
    "messages": _TRIAL
    | {
        "user": "number of the sender; those of worker N begin at N · 100000",
        "id": "number of the message, rising for each user; from 1000000000 on: those that the client did not take, as "
        "too many were under way, its session was over, or it was never let in; they are `lost`",
        "kind": "`say` (to everyone) or `tell` (to one)",
        "size_bytes": "length of the text",
        "intended_s": "when the schedule wanted it sent; seconds since the start of the trial's load",
        "sent_s": "when it was handed to the client; seconds since the start of the trial's load",
        "echoed_s": "when the first copy of the echo arrived, which is the acknowledgement; empty if none came",
        "response_time_ms": "`echoed_s − intended_s`: what a user waits, schedule lag included",
        "service_time_ms": "`echoed_s − sent_s`: client, link and server alone",
        "send_lag_ms": "`sent_s − intended_s`: how late the load generator was, or its user let in",
        "seen_lag_ms": "from `echoed_s` to when the process read it",
        "stamp": "whose time `echoed_s` is: `wire` (of the packet that completed the line), `kernel` (of the read that "
        "it ended), or `read` (of a read that took more, or so for the other copy: it came no later than that)",
        "path": "connection on which the first copy of the echo arrived",
        "second_copy_lag_ms": "how much later it arrived on the other one; empty if it was not read there",
        "first_delivery_ms": "from `sent_s` to the first other user who had it (sampled messages; one machine)",
        "last_delivery_ms": "from `sent_s` to the last other user who had it: fan-out complete (likewise)",
        "outcome": "`echoed`, `refused`, or `lost` (no answer until the end of the trial)",
        "warmup": "1: intended during the warm-up, left out of the statistics",
        "disturbed": "1: when somebody had to run for it the machine did not let them, left out of the statistics",
    },
    "deliveries": _TRIAL
    | {
        "receiver": "number of the receiving user",
        "sender": "number of the sending user",
        "id": "number of the message, as in `messages.csv`",
        "kind": "`say` or `tell`",
        "path": "connection on which the first copy arrived",
        "received_s": "when it arrived at the receiver; seconds since the start of the trial's load",
        "one_way_delay_ms": "from the sender's `sent_s` to `received_s`; empty if they are on different machines",
        "stamp": "whose time `received_s` is, as in `messages.csv`",
        "disturbed": "as in `messages.csv`",
    },
    "tcp": _TRIAL
    | {
        "side": "`client` or `server`: whose end of the connection",
        "user": "number of the user",
        "path": "`primary` or `secondary`",
        "time_s": "seconds since the start of the trial's load",
        "rtt_ms": "smoothed round-trip time (RFC 6298)",
        "rttvar_ms": "its mean deviation (RFC 6298)",
        "min_rtt_ms": "smallest round-trip time seen",
        "retransmissions": "segments retransmitted so far",
        "retransmitted_bytes": "bytes retransmitted so far",
        "sent_bytes": "bytes sent so far, retransmissions included",
        "segments_out": "segments sent so far",
        "lost_segments": "segments believed lost at this moment",
        "reordering": "reordering distance assumed by the kernel, in segments",
        "cwnd_segments": "congestion window",
        "delivery_rate_bps": "most recent goodput measured by the kernel, bits per second",
    },
    "clients": _TRIAL
    | {
        "user": "number of the user",
        "deliveries": "messages of others that arrived, sampled or not",
        "copies_dropped": "second copies of messages that the client dropped (the price of `redundant`)",
        "path_failures": "connections that broke",
        "registration_ms": "from connecting to being let in by the server: the handshake of TCP, that "
        "of TLS if there is one, and the registration; empty if it was not let in, or not into its room",
        "let_in_s": "when it was in its room, and could send what was due; seconds since the start of the trial's "
        "load; empty if it never was",
    },
    "files": _TRIAL
    | {
        "sender": "number of the sending user",
        "receiver": "number of the receiving user",
        "size_bytes": "length of the file",
        "started_s": "when the schedule wanted it sent; seconds since the start of the trial's load",
        "duration_ms": "from `started_s` until the sender heard that it was verified and stored, or that it failed",
        "goodput_bps": "`size_bytes` · 8 in that time, bits per second; empty if it did not arrive",
        "resent_bytes": "bytes of it that were sent more than once, after a connection broke",
        "outcome": "`done`, `rejected`, `cancelled`, or `failed` (also: not over when the load ended)",
        "disturbed": "1: stalls took a share of the time due to it that is felt; left out of its goodput",
    },
    "pauses": _TRIAL
    | {
        "time_s": "when a garbage collection began; seconds since the start of the trial's load",
        "duration_ms": "how long it stopped the process; only pauses above 1 ms are rows",
        "process": "which process, as in `machine.csv`",
        "generation": "of Python's collector: 2 is a full collection",
    },
    "link": _TRIAL
    | {
        "when": "`before` or `after` the load: a figure that was measured; `change`: the link's timeline changed it",
        "path": "`primary` or `secondary`",
        "direction": "`up` (client → server), `down`, or `both`",
        "time_s": "when the change happened; seconds since the start of the trial's load; empty for measurements",
        "change": "what the direction does from then on; empty for measurements, as what follows is for changes",
        "metric": "what was measured, unit in its name",
        "requested": "what the link profile asks for",
        "expected": "what a perfect link would show: with the time that a probe occupies a link with a rate",
        "measured": "what probes found",
        "low": "smallest value within tolerance",
        "high": "largest value within tolerance",
        "within": "`True`: `low ≤ measured ≤ high`",
        "probes": "probes sent, in each direction",
        "disturbed": "`True`: the machine stalled so much that what is off may be the machine rather than the link",
    },
    "stalls": _TRIAL
    | {
        "time_s": "when it began; seconds since the start of the trial's load, below 0 while the link was calibrated",
        "length_ms": "how long it lasted; only those above 1 ms are rows",
        "where": "`core N`: it ran nothing of ours, whatever its priority; `emulator`: packets left it late",
    },
    "machine": _TRIAL
    | {
        "time_s": "seconds since the start of the trial's load",
        "process": "`load` (or `master`, `load-0`, `load-1`, …), `server`, `link`, `machine` (all its cores), or "
        "`other: NAME`: a process that is not ours (the three busiest)",
        "cpu_percent": "CPU used in the last second; 100 is one core",
        "rss_bytes": "resident memory; empty for `machine` and others",
        "descriptors": "open file descriptors, sockets among them; likewise",
        "run_delay_ms": "how long it was ready to run in the last second, and waited for a core (its main thread)",
        "steal_percent": "`machine` alone: CPU time that the host withheld in the last second; 100 is one core",
        "pressure_percent": "`machine` alone: share of the last second in which somebody waited for a core (PSI)",
        "throttled_ms": "`machine` alone: for how much of it our control group was not allowed to run",
    },
    "summary": {
        "variant": "the values that set this variant apart",
        "count": "messages intended after the warm-up, without those that were disturbed",
        "disturbed": "messages that the machine disturbed; left out of the figures of time",
        "average_ms": "mean response time",
        "minimum_ms": "smallest response time",
        "maximum_ms": "largest response time",
        "stddev_ms": "standard deviation of response times",
        "p50_ms": "median response time",
        "p95_ms": "95th percentile of response times",
        "p99_ms": "99th percentile of response times",
        "jitter_ms": "interarrival jitter (RFC 3550) of deliveries, warm-up left out, mean over receivers",
        "ipdv_p95_ms": "95th percentile of \\|IPDV\\| (RFC 5481: one-way delay minus that before), likewise",
        "pdv_p95_ms": "95th percentile of PDV (RFC 5481: one-way delay minus the smallest), likewise",
        "lost": "messages never echoed, disturbed ones included",
        "refused": "messages that the server refused, likewise",
        "duplicated": "messages that reached a user twice, warm-up included",
        "copies_dropped": "second copies that clients dropped (the price of `redundant`), warm-up included",
        "retransmissions": "segments retransmitted by both ends, warm-up included",
        "registration_ms": "median time from connecting to being let in, warm-up included",
        "files": "files that arrived, warm-up and disturbed ones included",
        "files_failed": "files that did not, likewise",
        "file_goodput_bps": "median goodput of those that arrived undisturbed, bits per second",
    },
}

#: The columns that hold words; all others hold numbers, or `True` and `False`.
TEXTS = {
    "kind",
    "path",
    "stamp",
    "outcome",
    "side",
    "process",
    "when",
    "direction",
    "change",
    "metric",
    "where",
    "variant",
}


def columns_markdown() -> str:
    """The column dictionary of `results/README.md`; `python -m loadtests.samples` prints it."""
    tables = []
    for table, columns in TABLES.items():
        rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in columns.items())
        tables.append(f"### {table}.csv\n\n| column | meaning |\n| --- | --- |\n{rows}\n")
    return "\n".join(tables)


if __name__ == "__main__":
    print(columns_markdown(), end="")

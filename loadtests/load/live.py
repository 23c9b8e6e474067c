"""What a load looks like while it runs: figures of its last ten seconds, and of all of it so far.

Batches of binary records are only kept when they come, once a second; figures are made of them when somebody asks,
so that a page that nobody looks at costs next to nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from loadtests.percentiles import SHARES, is_known, percentiles
from loadtests.samples import DELIVERED, ECHOED, ECHOED_AGAIN, PATHS, REFUSED, SENT, TCP, Record

#: Column → its title. `name` says what the row is about.
COLUMNS = {
    "name": "of",
    "sent": "sent",
    "answered": "answered",
    "refused": "refused",
    "p50": "response time p50 (ms)",
    "p95": "p95 (ms)",
    "p99": "p99 (ms)",
    "delivered": "deliveries",
    "one_way": "one-way delay p50 (ms)",
    "jitter": "jitter (ms)",
    "rtt": "clients' TCP RTT (ms)",
    "retransmissions": "clients' retransmissions",
    "by_secondary": "first copy by the second connection",
    "lead": "lead of the first copy (ms)",
}
#: Columns of what the harness knows of the link.
LINK_COLUMNS = ("path", "direction", "figure", "requested", "measured", "within")
#: Files in a folder of the run: what the harness knows, and a row for each trial that has ended.
FACTS, ENDED = "facts.json", "ended.jsonl"
#: Of the figures that are about now.
WINDOW_S = 10.0
_SHARES = {name: SHARES[name] for name in ("p50", "p95", "p99")}

Row = dict[str, str]
Batch = Mapping[str, bytes]
Values = npt.NDArray[np.float64]
Records = npt.NDArray[np.void]


class LiveFigures:
    """Takes what the load processes record, and tells what it comes to."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        #: (When it came, batch) of the last `WINDOW_S`.
        self._recent: deque[tuple[float, Batch]] = deque()
        #: Of all answered messages so far, in batches: response times in ms, and paths.
        self._times_ms: list[Values] = []
        self._paths: list[npt.NDArray[np.uint8]] = []
        self._counts = {record.name: 0 for record in (SENT, ECHOED, REFUSED, DELIVERED)}
        #: The newest sample of each user's connection on each path, and what those before it retransmitted.
        self._connections = _read(b"", TCP)
        self._retransmitted_before = 0

    def take(self, batch: Batch) -> None:
        """What a load process recorded since its last batch: record type → bytes."""
        now_s = self._now_s()
        self._recent.append((now_s, batch))
        self._forget(now_s)
        for name in self._counts:
            self._counts[name] += len(_read(batch.get(name, b""), _RECORDS[name]))
        echoed = _read(batch.get(ECHOED.name, b""), ECHOED)
        self._times_ms.append(_response_ms(echoed))
        self._paths.append(echoed["path"])
        if TCP.name in batch:
            self._follow(_read(batch[TCP.name], TCP))

    def rows(self, name: str = "") -> list[Row]:
        """The last ten seconds, all so far, and if both connections brought echoes, what each of them brought."""
        self._forget(self._now_s())
        prefix = f"{name}: " if name else ""
        times_ms = np.concatenate([np.empty(0), *self._times_ms])
        paths = np.concatenate([np.empty(0, np.uint8), *self._paths])
        rows = [{"name": f"{prefix}last {WINDOW_S:g} s"} | self._now(), {"name": f"{prefix}so far"} | self._so_far()]
        rows[1] |= _percentiles(times_ms)
        if len(np.unique(paths)) > 1:
            rows += [
                {"name": f"{prefix}so far, first by {path}", "answered": f"{(paths == number).sum():,}"}
                | _percentiles(times_ms[paths == number])
                for number, path in enumerate(PATHS)
            ]
        return rows

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()

    def _follow(self, samples: Records) -> None:
        """What is known of connections now; one that sent less than the sample before it has replaced another."""
        known = np.concatenate([self._connections, samples])
        ends = known["user"].astype(np.int64) * len(PATHS) + known["path"]
        order = np.argsort(ends, kind="stable")
        known, ends = known[order], ends[order]
        is_last = np.diff(ends, append=-1) != 0
        is_replaced = ~is_last[:-1] & (known["bytes_sent"][1:] < known["bytes_sent"][:-1])
        self._retransmitted_before += int(known["total_retrans"][:-1][is_replaced].sum())
        self._connections = known[is_last]

    def _so_far(self) -> Row:
        return {
            "sent": f"{self._counts[SENT.name]:,}",
            "answered": f"{self._counts[ECHOED.name]:,}",
            "refused": f"{self._counts[REFUSED.name]:,}",
            "delivered": f"{self._counts[DELIVERED.name]:,}",
            "rtt": _ms(self._connections["rtt_us"] / 1e3),
            "retransmissions": f"{self._retransmitted_before + self._connections['total_retrans'].sum():,}",
        }

    def _now(self) -> Row:
        sent, echoed, again, refused, delivered, tcp = (
            _read(b"".join(batch.get(record.name, b"") for _, batch in self._recent), record)
            for record in (SENT, ECHOED, ECHOED_AGAIN, REFUSED, DELIVERED, TCP)
        )
        delays_ms, receivers = _delays_ms(sent, delivered)
        is_secondary = echoed["path"] == PATHS.index("secondary")
        row = {
            "sent": f"{len(sent):,}",
            "answered": f"{len(echoed):,}",
            "refused": f"{len(refused):,}",
            "delivered": f"{len(delivered):,}",
            "one_way": _ms(delays_ms),
            "jitter": _ms(_steps_ms(delays_ms, receivers), np.mean),
            "rtt": _ms(tcp["rtt_us"] / 1e3),
            "by_secondary": f"{is_secondary.mean():.0%}" if len(again) else "",
            "lead": _ms(_leads_ms(echoed, again)),
        }
        return row | _percentiles(_response_ms(echoed))


_RECORDS = {record.name: record for record in (SENT, ECHOED, REFUSED, DELIVERED)}


def _read(data: bytes, record: Record) -> Records:
    return np.frombuffer(data, record.numpy_fields)


def _response_ms(echoed: Records) -> Values:
    return np.asarray((echoed["received_ns"] - echoed["intended_ns"]) / 1e6, float)


def _keys(users: npt.NDArray[np.uint32], ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """A number for each message."""
    return users.astype(np.int64) << 32 | ids


def _delays_ms(sent: Records, delivered: Records) -> tuple[Values, npt.NDArray[np.uint32]]:
    """One-way delays by receiver in the order of arrival, and whose they are; of messages sent meanwhile."""
    order = np.argsort(keys := _keys(sent["user"], sent["id"]))
    wanted = _keys(delivered["sender"], delivered["id"])
    places = np.searchsorted(keys[order], wanted).clip(max=max(len(keys) - 1, 0))
    is_known = keys[order][places] == wanted if len(keys) else np.zeros(len(wanted), bool)
    delivered = delivered[is_known]
    delays_ms = (delivered["received_ns"] - sent["sent_ns"][order][places[is_known]]) / 1e6
    by_receiver = np.lexsort((delivered["received_ns"], delivered["receiver"]))
    return delays_ms[by_receiver], delivered["receiver"][by_receiver]


def _steps_ms(delays_ms: Values, receivers: npt.NDArray[np.uint32]) -> Values:
    """|D| of consecutive deliveries to one receiver, whose running mean is the jitter of RFC 3550."""
    return np.asarray(np.abs(np.diff(delays_ms))[np.diff(receivers) == 0], float)


def _leads_ms(echoed: Records, again: Records) -> Values:
    """By how much the first copy of each echo was earlier than the second, whichever was read first."""
    first, second = (_keys(rows["user"], rows["id"]) for rows in (echoed, again))
    _, of_first, of_second = np.intersect1d(first, second, return_indices=True)
    return np.asarray(np.abs(again["received_ns"][of_second] - echoed["received_ns"][of_first]) / 1e6, float)


def _percentiles(times_ms: Values) -> Row:
    found = percentiles(times_ms, _SHARES.values())
    return {
        name: f"{value:.1f}" if is_known(len(times_ms), share) else "too few"
        for (name, share), value in zip(_SHARES.items(), found, strict=True)
    }


def _ms(values: Values, middle: Callable[[Values], np.floating] = np.median) -> str:
    return f"{middle(values):.1f}" if len(values) else ""

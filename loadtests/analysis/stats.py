"""Numbers out of a run's tables."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loadtests.analysis.read import Run


def rfc3550_jitter_ms(one_way_delays_ms: npt.ArrayLike) -> float:
    """Interarrival jitter of packets in order of arrival: J += (|D| − J) / 16 (RFC 3550, section 6.4.1).

    D is the difference of consecutive transit times. Fewer than two packets have no jitter: NaN.
    """
    differences = np.abs(np.diff(np.asarray(one_way_delays_ms, dtype=float)))
    if differences.size == 0:
        return float("nan")
    jitter = 0.0
    for difference in differences:
        jitter += (difference - jitter) / 16
    return jitter


def summarise(run: Run) -> pd.DataFrame:
    """One row per variant, over all its repetitions, warm-up left out; columns as in `summary.csv`.

    Lost messages have no response time: they are counted in `lost`, not hidden in a maximum.
    """
    messages, deliveries = run.messages, run.table("deliveries")
    keys = run.conditions

    def by_variant(rows: pd.DataFrame) -> Any:
        return rows.groupby(keys, observed=True)

    times = by_variant(messages)["response_time_ms"]
    files = run.table("files")
    arrived = files[files["outcome"] == "done"]
    repeated = deliveries[deliveries.duplicated(["trial", "receiver", "sender", "id"])]
    summary = pd.DataFrame(
        {
            "count": by_variant(messages).size(),
            "average_ms": times.mean(),
            "minimum_ms": times.min(),
            "maximum_ms": times.max(),
            "stddev_ms": times.std(),
            "p50_ms": times.quantile(0.50),
            "p95_ms": times.quantile(0.95),
            "p99_ms": times.quantile(0.99),
            **delay_variation(deliveries, keys),
            "lost": by_variant(messages[messages["outcome"] == "lost"]).size(),
            "refused": by_variant(messages[messages["outcome"] == "refused"]).size(),
            "duplicated": by_variant(repeated).size(),
            "copies_dropped": by_variant(run.table("clients"))["copies_dropped"].sum(),
            "retransmissions": by_variant(retransmissions(run))["retransmissions"].sum(),
            "files": by_variant(arrived).size(),
            "files_failed": by_variant(files[files["outcome"] != "done"]).size(),
            "file_goodput_bps": by_variant(arrived)["goodput_bps"].median(),
        }
    )
    counts = ["count", "lost", "refused", "duplicated", "copies_dropped", "retransmissions", "files", "files_failed"]
    summary[counts] = summary[counts].fillna(0).astype(int)
    summary = summary.reset_index()
    if "variant" not in summary:
        names = [" ".join(map(str, labels)) for labels in summary[keys].itertuples(index=False)]
        summary.insert(0, "variant", names)
    return summary


def presentable(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary for people: without the columns about files if nobody sent any."""
    if summary[["files", "files_failed"]].to_numpy().any():
        return summary
    return summary.drop(columns=["files", "files_failed", "file_goodput_bps"])


def retransmissions(run: Run) -> pd.DataFrame:
    """The last count of each connection's end: one row per trial, side, user, path, and connection there.

    A path whose connection broke gets another one, which counts from 0 again.
    """
    tcp = run.table("tcp").sort_values("time_s", kind="stable")
    keys = ["trial", "side", "user", "path"]
    tcp["connection"] = (tcp.groupby(keys)["sent_bytes"].diff() < 0).groupby([tcp[key] for key in keys]).cumsum()
    return tcp.groupby([*keys, "connection"]).tail(1)


def second_connection(run: Run) -> pd.DataFrame:
    """Response times of the other modes as ratios to `single`, on the same link: below 1 the second connection helped.

    Empty when the run did not vary `connections`, or has no `single`.
    """
    summary = summarise(run)
    if "connections" not in summary or "single" not in set(summary["connections"]):
        return pd.DataFrame()
    is_single = summary["connections"] == "single"
    others = [key for key in run.conditions if key != "connections"]
    pairs = summary[~is_single].merge(
        summary[is_single], on=others or None, how="inner" if others else "cross", suffixes=("", "_of_single")
    )
    measures = ("p50", "p95", "p99", "maximum")
    for measure in measures:
        pairs[f"{measure} ratio"] = pairs[f"{measure}_ms"] / pairs[f"{measure}_ms_of_single"]
    return pairs[["connections", *others, *(f"{measure} ratio" for measure in measures)]]


def link_report(run: Run) -> pd.DataFrame:
    """What each link was asked for beside what probes measured, a row for each link, path and direction.

    Cells say `requested → measured` (means over trials); a `!` marks a figure that was out of its window.
    """
    rows = run.table("link")
    keys = [*(key for key in run.conditions if key.startswith("link")), "path", "direction"]
    groups = rows.groupby([*keys, "metric"], observed=True)
    figures = groups.agg(requested=("requested", "mean"), measured=("measured", "mean"), within=("within", "min"))
    figures["cell"] = [
        f"{row.requested:.4g} → {row.measured:.4g}{'' if row.within else ' !'}" for row in figures.itertuples()
    ]
    return figures["cell"].unstack("metric", fill_value="").reset_index().rename_axis(columns=None)


def delay_variation(deliveries: pd.DataFrame, keys: list[str]) -> dict[str, "pd.Series[float]"]:
    """How much one-way delay varies, for each variant: per receiver in order of arrival, then the mean over receivers.

    `jitter_ms` is the interarrival jitter of RFC 3550; IPDV and PDV are the two forms of RFC 5481: against the packet
    before, and against the smallest delay.
    """
    receivers = deliveries.dropna(subset="one_way_delay_ms").groupby([*keys, "trial", "receiver"], observed=True)
    delays = receivers["one_way_delay_ms"]
    measures = pd.DataFrame(
        {
            "jitter_ms": delays.agg(rfc3550_jitter_ms),
            "ipdv_p95_ms": delays.agg(_ipdv_p95_ms),
            "pdv_p95_ms": delays.quantile(0.95) - delays.min(),
        }
    )
    means = measures.groupby(keys, observed=True).mean()
    return {str(name): means[name] for name in means}


def _ipdv_p95_ms(delays_ms: "pd.Series[float]") -> float:
    return float(delays_ms.diff().abs().quantile(0.95))

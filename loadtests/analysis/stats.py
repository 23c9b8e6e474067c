"""Numbers out of a run's tables."""

import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from operator import lt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loadtests.analysis.read import Run
from loadtests.percentiles import SHARES as percentile_shares
from loadtests.percentiles import is_known, percentiles
from loadtests.samples import TABLES

#: Columns of percentiles in the summary → share of messages below.
SHARES = {f"{name}_ms": percentile_shares[name] for name in ("p50", "p95", "p99")}
#: Columns of the summary that are counts; 0 where nothing was counted.
COUNTS = (
    "count", "disturbed", "lost", "refused", "duplicated", "copies_dropped", "retransmissions", "files", "files_failed",
)  # fmt: skip
#: What tells a connection's end from all others in :func:`tcp_samples`.
CONNECTION = ["trial", "side", "user", "path", "connection"]
#: Columns of `tcp.csv` that only rise as long as a connection lives.
_COUNTERS = ["sent_bytes", "segments_out", "retransmitted_bytes", "retransmissions"]
#: Weights of the last differences in RFC 3550's jitter; older ones weigh less than a double can tell.
_DECAY = (15 / 16) ** np.arange(1024) / 16
#: A spreadsheet holds no more rows; nobody has sorted a larger table in one, and it takes long to look through.
_SPREADSHEET_ROWS = 1_048_576


def rfc3550_jitter_ms(one_way_delays_ms: npt.ArrayLike) -> float:
    """Interarrival jitter of packets in order of arrival: J += (|D| − J) / 16 (RFC 3550, section 6.4.1).

    D is the difference of consecutive transit times. Written out, the last J is the sum of all |D|, the one of k
    packets ago weighted by (15/16)^k / 16. Fewer than two packets have no jitter: NaN.
    """
    differences = np.abs(np.diff(np.asarray(one_way_delays_ms, dtype=float)))
    if differences.size == 0:
        return float("nan")
    recent = differences[: -_DECAY.size - 1 : -1]
    return float(recent @ _DECAY[: recent.size])


def summarise(run: Run) -> pd.DataFrame:
    """One row per variant, over all its repetitions, warm-up left out; columns as in `summary.csv`.

    A lost message waits forever: percentiles count it as infinite. Mean, minimum, maximum and deviation are of the
    messages that were answered.
    """
    keys = run.conditions
    with ThreadPoolExecutor(1) as beside:  # the two large tables, side by side
        deliveries = beside.submit(per_receiver, run)
        sent = run.after_warmup("response_time_ms", "outcome", "disturbed")
    receivers = deliveries.result()
    messages = run.undisturbed(sent)
    files, clients = run.table("files"), run.table("clients")

    def by_variant(rows: pd.DataFrame) -> Any:
        return rows.groupby(keys, observed=True)

    times = by_variant(messages)["response_time_ms"]
    arrived = files[files["outcome"] == "done"]
    summary = pd.DataFrame(
        {
            "count": by_variant(messages).size(),
            "disturbed": by_variant(sent[sent["disturbed"].fillna(0) == 1]).size(),
            "average_ms": times.mean(),
            "minimum_ms": times.min(),
            "maximum_ms": times.max(),
            "stddev_ms": times.std(),
            **response_percentiles(messages, keys),
            **{name: by_variant(receivers)[name].mean() for name in ("jitter_ms", "ipdv_p95_ms", "pdv_p95_ms")},
            "duplicated": by_variant(receivers)["duplicated"].sum(),
            "lost": by_variant(sent[sent["outcome"] == "lost"]).size(),
            "refused": by_variant(sent[sent["outcome"] == "refused"]).size(),
            "copies_dropped": by_variant(clients)["copies_dropped"].sum(),
            "retransmissions": by_variant(retransmissions(run))["retransmissions"].sum(),
            "registration_ms": by_variant(clients)["registration_ms"].median(),
            "files": by_variant(arrived).size(),
            "files_failed": by_variant(files[files["outcome"] != "done"]).size(),
            "file_goodput_bps": by_variant(run.undisturbed(arrived))["goodput_bps"].median(),
        }
    )
    summary[[*COUNTS]] = summary[[*COUNTS]].fillna(0).astype(int)
    summary = summary.reset_index()
    if "variant" not in summary:
        names = [" ".join(map(str, labels)) for labels in summary[keys].itertuples(index=False)]
        summary.insert(0, "variant", names)
    columns = [key for key in keys if key != "variant"]
    return summary[["variant", *columns, *(name for name in TABLES["summary"] if name != "variant")]]


def response_percentiles(
    messages: pd.DataFrame, keys: list[str], shares: Mapping[str, float] = SHARES
) -> dict[str, "pd.Series[float]"]:
    """Column → the percentile for each variant; `messages` have `response_time_ms` and `outcome`.

    A message that was refused did not wait, and is left out.
    """
    waited = messages[messages["outcome"] != "refused"].groupby(keys, observed=True)["response_time_ms"]
    rows = [percentiles(times, shares.values()) for _, times in waited]
    table = pd.DataFrame(rows, index=waited.size().index, columns=list(shares), dtype=float)
    return {name: table[name] for name in shares}


def sent(run: Run, summary: pd.DataFrame) -> "pd.Series[int]":
    """How many messages each row's `lost` and `refused` are of: disturbed ones included, which `count` leaves out."""
    return summary["count"] if run.with_disturbed else summary["count"] + summary["disturbed"]


def waited(run: Run, summary: pd.DataFrame) -> "pd.Series[int]":
    """How many messages the percentiles of each row are of: all that count, but for those that were refused."""
    outcomes = run.measured("outcome")
    counts = outcomes[outcomes["outcome"] != "refused"].groupby(run.conditions, observed=True).size()
    known = counts.rename("waited").reset_index()
    return summary[run.conditions].merge(known, on=run.conditions, how="left")["waited"].fillna(0).astype(int)


def presentable(run: Run, summary: pd.DataFrame) -> pd.DataFrame:
    """The summary for people: no percentile that too few messages tell, no columns about files if nobody sent any."""
    answers = waited(run, summary)
    known = {name: np.array([is_known(count, share) for count in answers], bool) for name, share in SHARES.items()}
    summary = summary.assign(**{name: summary[name].where(known[name]) for name in SHARES})
    if summary[["files", "files_failed"]].to_numpy().any():
        return summary
    return summary.drop(columns=["files", "files_failed", "file_goodput_bps"])


def retransmissions(run: Run) -> pd.DataFrame:
    """The last count of each connection's end: one row per trial, side, user, path, and connection there."""
    return tcp_samples(run).groupby(CONNECTION).tail(1)


def tcp_samples(run: Run) -> pd.DataFrame:
    """The table `tcp` in order of time, with the number of the `connection` on its path that each row is of.

    A path whose connection broke gets another one, which counts from 0 again; the server's end of the one that broke
    is sampled on beside it until it is given up.
    """
    tcp = run.table("tcp").sort_values("time_s", kind="stable").assign(connection=0)
    keys = CONNECTION[:-1]
    ends = tcp.groupby(keys).ngroup()
    fell = (tcp.groupby(ends)[_COUNTERS].diff() < 0).any(axis="columns")
    for _, samples in tcp[ends.isin(ends[fell])].groupby(keys):
        tcp.loc[samples.index, "connection"] = connections(samples[_COUNTERS].to_numpy(float).tolist())
    return tcp


def connections(samples: Iterable[list[float]]) -> list[int]:
    """Which connection each sample is of, numbered as they appear; samples are counts, in order of time.

    As long as a connection lives, none of its counts falls. So a sample is of the connection that it could have risen
    from, of several the one whose last counts are the nearest, however samples of several follow each other; one that
    could have risen from none begins another.
    """
    last: list[list[float]] = []
    found = []
    for counts in samples:
        possible = [n for n, before in enumerate(last) if not any(map(lt, counts, before))]
        number = max(possible, key=last.__getitem__, default=len(last))
        last[number : number + 1] = [counts]
        found.append(number)
    return found


def second_connection(run: Run) -> pd.DataFrame:
    """Response times of the other modes as ratios to `single`, on the same link: below 1 the second connection helped.

    Empty when the run did not vary `connections`, or has no `single`; NaN where too few messages tell a percentile.
    """
    summary = presentable(run, summarise(run))
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
    rows = rows[rows["when"] != "change"]
    if rows.empty:
        return pd.DataFrame()
    is_rate = rows["metric"].str.endswith("_bps")
    rows.loc[is_rate, ["requested", "measured"]] /= 1e6
    rows["metric"] = rows["metric"].str.replace("_bps", "_mbps")
    keys = [*(key for key in run.conditions if key.startswith("link")), "path", "direction"]
    groups = rows.groupby([*keys, "metric"], observed=True)
    figures = groups.agg(requested=("requested", "mean"), measured=("measured", "mean"), within=("within", "min"))
    figures["cell"] = [
        f"{row.requested:.4g} → {row.measured:.4g}{'' if row.within else ' !'}" for row in figures.itertuples()
    ]
    return figures["cell"].unstack("metric", fill_value="").reset_index().rename_axis(columns=None)


def per_receiver(run: Run) -> pd.DataFrame:
    """One row per trial and receiver: how much one-way delay varied, in order of arrival, and messages it had twice.

    `jitter_ms` is the interarrival jitter of RFC 3550; IPDV and PDV are the two forms of RFC 5481: against the packet
    before, and against the smallest delay. All three are of messages intended after the warm-up, as if nobody had
    listened before, without what the machine disturbed. Messages that came twice are counted from the first second on.
    """
    rows = run.rows("deliveries", ["receiver", "sender", "id", "one_way_delay_ms", "disturbed"])
    if len(rows) <= _SPREADSHEET_ROWS:
        moments_s = run.rows("deliveries", ["received_s"])["received_s"].to_numpy()
        if ((np.diff(moments_s) < 0) & (np.diff(rows["trial"]) == 0)).any():
            rows = rows.iloc[np.argsort(moments_s, kind="stable")]
    delays_ms = np.where(run.is_after_warmup(rows), rows.pop("one_way_delay_ms"), np.nan)
    if not run.with_disturbed:
        delays_ms[rows.pop("disturbed").to_numpy(np.float32, na_value=np.nan) == 1] = np.nan
    trials, trial_numbers = pd.factorize(rows.pop("trial"), sort=True)
    receivers, receiver_numbers = pd.factorize(rows.pop("receiver"), sort=True)
    groups = trials * len(receiver_numbers) + receivers
    if groups.size and groups.max() < 1 << 16:
        groups = groups.astype(np.uint16)  # which numpy sorts by radix, in a tenth of the time
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order].astype(np.int64), append=-1)) + 1
    messages = rows.pop("sender").to_numpy(np.int64)[order]
    messages <<= 32
    messages |= rows.pop("id").to_numpy(np.int64)[order]
    delays_ms = delays_ms[order]
    measures = [
        (*_variation(delays_ms[begin:end]), end - begin - np.unique(messages[begin:end]).size)
        for begin, end in itertools.pairwise([0, *ends])
    ]
    columns = ["jitter_ms", "ipdv_p95_ms", "pdv_p95_ms", "duplicated"]
    table = pd.DataFrame(measures, columns=columns, dtype=float)
    of_group = groups[order][ends - 1].astype(np.int64)
    table["trial"] = trial_numbers[of_group // max(len(receiver_numbers), 1)]
    table["receiver"] = receiver_numbers[of_group % max(len(receiver_numbers), 1)]
    return table.merge(run.trials, on="trial")


def _variation(delays_ms: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Jitter, 95th percentile of |IPDV|, and of PDV; NaN where there are too few delays."""
    known_ms = delays_ms[~np.isnan(delays_ms)]
    if not known_ms.size:
        return (float("nan"),) * 3
    steps_ms = np.abs(np.diff(known_ms))
    ipdv_ms = float(np.quantile(steps_ms, 0.95)) if steps_ms.size else float("nan")
    return rfc3550_jitter_ms(known_ms), ipdv_ms, float(np.quantile(known_ms, 0.95) - known_ms.min())

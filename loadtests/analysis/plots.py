"""Figures of a run: each function takes a Run and returns a Gallery, axes labelled with units.

The first varied key of the scenario is the condition (a panel each, or the x axis), the second one is the colour;
both in the scenario's order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from loadtests.analysis.pictures import (
    DASHES,
    MARKERS,
    PALETTE,
    Gallery,
    Picture,
    crosses,
    finished,
    fitting,
    from_zero,
    panel,
    plain_log,
)
from loadtests.analysis.read import Run
from loadtests.analysis.stats import CONNECTION, per_receiver, tcp_samples
from loadtests.percentiles import LEAST_BEYOND, SHARES, is_known, percentiles

_RESPONSE_TIME = "response time (ms)"
#: More points than this are drawn as density.
_MOST_POINTS = 3000
#: Shorter stalls than this, in ms, are not marked.
_FELT_STALL_MS = 5.0
#: More points than this add nothing to a curve of 700 pixels.
_CURVE_POINTS = 1000
#: Changes that are nearer to each other than this share of the axis are drawn as one: a ramp has up to 50 steps.
_NEAR = 0.025
Values = npt.NDArray[np.float64]


def distribution(run: Run) -> Gallery:
    """ECDF of response times; lost messages keep it below 1."""
    messages = response_times(run)
    messages = messages.assign(response_time_ms=messages["response_time_ms"].fillna(np.inf))
    pictures = _curves(run, messages, "response_time_ms", _RESPONSE_TIME, "share answered by then")
    return Gallery(
        "How long does a message take?", pictures, "Dotted: 99 %. Where a curve ends below 1, messages were lost."
    )


def tail(run: Run) -> Gallery:
    """The share of messages that waited longer, on a log scale, down to where ten messages are left."""
    messages = response_times(run)
    enough = messages.groupby(run.conditions[0], observed=True)["response_time_ms"].count() > LEAST_BEYOND
    pictures = [_tail(_titled(run, name), groups) for name, groups in _panels(run, messages) if enough[name]]
    note = f"0.01 is p99, 0.001 is p99.9. Curves end where fewer than {LEAST_BEYOND} messages took longer."
    return Gallery("How bad is the tail?", pictures, note)


def over_time(run: Run) -> Gallery:
    """Each message at its intended time: retransmissions are the steps above the floor, overload is a slope."""
    messages = response_times(run, "intended_s")
    changes, stalls = run.link_changes, run.table("stalls")
    stalls = stalls[stalls["length_ms"] >= _FELT_STALL_MS]
    pictures = []
    for name, groups in _panels(run, messages):
        figure, [axes] = panel()
        for label, rows, colour, place in groups:
            answered = rows.dropna(subset="response_time_ms")
            x, y = answered["intended_s"], answered["response_time_ms"]
            if len(answered) > _MOST_POINTS:
                _density(axes, x, y, label, colour)
            else:
                # Every second one hollow, so that they are told apart where they overlap, and in print.
                drawn: dict[str, Any] = {"marker": MARKERS[place % 8], "color": colour}
                drawn |= {"facecolor": "none"} if place % 2 else {}
                axes.scatter(x, y, s=10, alpha=0.6, linewidth=0.6 * (place % 2), **drawn)
                axes.scatter([], [], s=30, label=label, **drawn)  # large enough for a legend
            lost_s = rows.loc[rows["response_time_ms"].isna(), "intended_s"]
            crosses(axes, lost_s, colour)
        changed_s = changes.loc[changes[run.conditions[0]] == name, "time_s"].round(1).unique()
        for begin_s, end_s in together(changed_s, _NEAR * np.ptp(axes.get_xlim())):
            for time_s in {begin_s, end_s}:
                axes.axvline(time_s, color="black", alpha=0.5, linewidth=0.9, linestyle="--", zorder=1)
            if begin_s < end_s:
                axes.axvspan(begin_s, end_s, color="black", alpha=0.08, linewidth=0, zorder=0.5)
        stalled_s = stalls.loc[stalls[run.conditions[0]] == name, "time_s"]
        for time_s in stalled_s[stalled_s.between(*axes.get_xlim())]:
            axes.axvline(time_s, ymax=0.05, color="black", linewidth=0.9)
        axes.set(title=_titled(run, name), xlabel="intended time of the message (s)", ylabel=_RESPONSE_TIME)
        from_zero(axes)
        pictures.append(finished(figure, f"Response time of each message over time, {name}"))
    note = (
        "Dashed: the link changes; shaded: in many steps. Cross at the upper edge: lost. Tick at the lower: a stall. "
        "Bands: 1 to 99 %."
    )
    return Gallery("When were messages slow?", pictures, note)


def percentile_table(run: Run) -> Gallery:
    """Percentiles side by side, one panel each, only those that enough messages tell."""
    messages, condition, colour = _with_roles(run, response_times(run))
    values = [value for value in run.trials[condition].cat.categories if (run.trials[condition] == value).any()]
    curves = 1 if colour is None else len(messages[colour].cat.categories)
    pictures = []
    for name, share in SHARES.items():
        figure, [axes] = panel()
        found = 0
        for place, label, rows in _groups(messages, colour):
            of = {value: rows.loc[rows[condition] == value, "response_time_ms"] for value in values}
            known = {v: percentiles(t, [share])[0] for v, t in of.items() if is_known(len(t), share)}
            known = {value: ms for value, ms in known.items() if np.isfinite(ms)}
            offset = (place - (curves - 1) / 2) * min(0.16, 0.7 / curves)
            places = [values.index(value) + offset for value in known]
            found += len(known)
            axes.plot(places, list(known.values()), MARKERS[place % 8], color=PALETTE[place % 8], label=label, ms=7)
        if not found:
            continue
        names = [fitting(str(value), max(16, 44 // len(values))) for value in values]
        axes.set_xticks(range(len(values)), names, rotation=20 if len(values) > 3 else 0)
        axes.set(title=name, xlabel=condition, ylabel=_RESPONSE_TIME, yscale="log", xlim=(-0.5, len(values) - 0.5))
        plain_log(axes.yaxis)
        pictures.append(finished(figure, f"{name} of response time for each {condition}"))
    return Gallery(
        "Median and tail",
        pictures,
        "A percentile is drawn if ten messages or more lie beyond it, and it is finite: lost ones count as infinite.",
    )


def one_way_delay(run: Run) -> Gallery:
    """ECDF of one-way delay: from the sender's hand, through the server, to each receiver."""
    rows = run.delivered("one_way_delay_ms")
    pictures = _curves(run, rows, "one_way_delay_ms", "one-way delay (ms)", "share of deliveries")
    note = "Of deliveries after the warm-up; what never came is not among them."
    if unknown := int(rows["one_way_delay_ms"].isna().sum()):
        note += f" Not drawn: {unknown:,} of {len(rows):,}, whose sender and receiver are on different machines."
    return Gallery("How long until the others have it?", pictures, note)


def fan_out(run: Run) -> Gallery:
    """ECDF of the time until the last receiver had a message."""
    rows = run.measured("last_delivery_ms")
    pictures = _curves(run, rows, "last_delivery_ms", "until the last one has it (ms)", "share of messages")
    return Gallery("When does the last receiver have it?", pictures)


def jitter(run: Run) -> Gallery:
    """ECDF over receivers of the interarrival jitter."""
    pictures = _curves(run, per_receiver(run), "jitter_ms", "interarrival jitter, RFC 3550 (ms)", "share of receivers")
    return Gallery("How unsteady is the delay?", pictures)


def second_copy(run: Run) -> Gallery:
    """Which connection brought the first copy, and how much earlier it came for it than the primary's own."""
    question = "What did the second connection gain?"
    rows = run.measured("second_copy_lag_ms", "path").dropna(subset="second_copy_lag_ms")
    if rows.empty:
        return Gallery(question, [], "No message came twice: no `connections: redundant`.")
    rows = rows.assign(variant=rows["variant"].cat.remove_unused_categories(), is_gain=rows["path"] == "secondary")
    shares = rows.groupby("variant", observed=True)["is_gain"].mean()
    brought, [axes] = panel()
    axes.barh(range(len(shares)), 100 * (1 - shares), color=PALETTE[0], label="primary")
    axes.barh(
        range(len(shares)), 100 * shares, left=100 * (1 - shares), color=PALETTE[1], label="secondary", hatch="//"
    )
    axes.set_yticks(range(len(shares)), [fitting(str(name), 24) for name in shares.index])
    axes.invert_yaxis()
    axes.set(title="Who brought the first copy?", xlabel="messages (%)", xlim=(0, 100))
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    pictures = [finished(brought, f"Share of messages whose first copy came by the second connection: {told}")]
    gained, [axes] = panel()
    for place, (name, of) in enumerate(rows.groupby("variant", observed=True)):
        gains_ms = np.sort(of.loc[of["is_gain"], "second_copy_lag_ms"].to_numpy(float))
        if gains_ms.size < LEAST_BEYOND:
            continue
        x, y = _thinned(gains_ms, np.arange(len(gains_ms), 0, -1) / len(of))
        colour, dashes = PALETTE[place % 8], DASHES[place % 8]
        axes.plot(x, 100 * y, color=colour, linestyle=dashes, label=str(name), drawstyle="steps-pre")
    note = (
        "Of messages that came twice. The gain is how much earlier the second connection brought its copy; a curve "
        f"takes {LEAST_BEYOND} of them"
    )
    if not axes.lines:
        return Gallery(question, pictures, f"{note}, and no variant has so many.")
    axes.set(title="How much earlier was it?", xlabel="gain (ms)", ylabel="messages that gained more (%)", xscale="log")
    from_zero(axes)
    plain_log(axes.xaxis)
    pictures.append(finished(gained, "Share of messages that the second connection brought earlier, by how much"))
    return Gallery(question, pictures, f"{note}.")


def seconds(run: Run) -> Gallery:
    """Response time, throughput, retransmissions, RTT and congestion window of the same seconds, by variant."""
    messages, tcp = response_times(run, "intended_s"), _retransmitted(run)
    answers = run.table("messages", ["echoed_s"])
    answers = answers.assign(second=answers["echoed_s"].floordiv(1))
    pictures = []
    for variant, rows in messages.groupby("variant", observed=True):
        figure, [time, rate, retransmitted, rtt, window] = panel(5)
        draw_by_second(time, rows, {"median": 0.5, "slowest": 1.0})
        answered, ends = answers[answers["variant"] == variant], tcp[tcp["variant"] == variant]
        last_s = np.nanmax([0, answered["second"].max(), ends["second"].max(), rows["intended_s"].max()])
        every = pd.MultiIndex.from_product([answered["trial"].unique(), np.arange(last_s + 1)])
        counts = _mean_counts(answered.groupby(["trial", "second"]).size().astype(float), every)
        rate.plot(counts.index + 0.5, counts)
        below = 0 * counts
        for place, side in enumerate(("client", "server"), 2):
            of_trials = ends[ends["side"] == side].groupby(["trial", "second"])["retransmitted"].sum()
            counts, colour = _mean_counts(of_trials, every), PALETTE[place]
            x = counts.index + 0.5
            retransmitted.bar(x, counts, width=0.8, bottom=below, color=colour, label=f"{side}'s end")
            below += counts
        clients = ends[(ends["side"] == "client") & (ends["time_s"] >= 0)]
        for axes, column in ((rtt, "rtt_ms"), (window, "cwnd_segments")):
            mean = clients.groupby("second")[column].mean()
            axes.plot(mean.index + 0.5, mean)
        names = ("resp. (ms)", "answers/s", "retrans./s", "RTT (ms)", "cwnd (seg.)")
        for axes, name in zip((time, rate, retransmitted, rtt, window), names, strict=True):
            axes.set_ylabel(name)
            from_zero(axes, least=1.0 if axes is retransmitted else 0.0)
        time.set_title(str(variant))
        window.set_xlabel("time (s)")
        pictures.append(finished(figure, f"Response time, throughput, retransmissions, RTT and window: {variant}"))
    note = (
        "Response times stand where messages were due, a cross where one was lost, which makes them infinite; answers "
        "where they came. RTT and window: of the clients' ends. All: mean over trials; warm-up in all but the first."
    )
    return Gallery("What happened in the same seconds?", pictures, note)


def cpu(run: Run) -> Gallery:
    """CPU of generator, server and link over time, one panel a variant; none in virtual time, where it is free."""
    question = "Was the machine busy?"
    if run.manifest.clock == "virtual":
        return Gallery(question, [], "In virtual time computing takes no time.")
    machine = run.table("machine", ["time_s", "process", "cpu_percent"])
    machine = machine[machine["time_s"] >= 0]
    pictures = []
    processes = drawn_processes(machine)
    for variant, rows in machine.groupby("variant", observed=True):
        figure, [axes] = panel()
        for place, process in enumerate(processes):
            of = rows[rows["process"] == process]
            mean = of.groupby(of["time_s"].floordiv(1))["cpu_percent"].mean()
            if not mean.empty:
                axes.plot(mean.index, mean, label=process, color=PALETTE[place % 8], linestyle=DASHES[place % 8])
        axes.set(title=str(variant), xlabel="time (s)", ylabel="CPU (% of a core)")
        from_zero(axes)
        pictures.append(finished(figure, f"CPU use over time of each process, {variant}"))
    note = "'machine' is the sum over all cores. Other programs: those that used most."
    return Gallery(question, pictures, note)


def response_times(run: Run, *columns: str) -> pd.DataFrame:
    """The response times, and these columns, of all messages but those that were refused: they did not wait."""
    messages = run.measured("response_time_ms", "outcome", *columns)
    return messages[messages["outcome"] != "refused"]


def _percentile(times_ms: "pd.Series[float]", share: float) -> float:
    return percentiles(times_ms, [share])[0]


def _retransmitted(run: Run) -> pd.DataFrame:
    """The samples of `tcp` with the `second` of each, and how many segments its connection `retransmitted` since the
    one before, or until the first."""
    tcp = tcp_samples(run)
    more = tcp.groupby(CONNECTION)["retransmissions"].diff().fillna(tcp["retransmissions"])
    return tcp.assign(second=tcp["time_s"].floordiv(1), retransmitted=more)


def _mean_counts(counts: "pd.Series[float]", every: pd.MultiIndex) -> "pd.Series[float]":
    """Of each second the mean over trials; `every`: all trials and seconds, where there is no count it is 0."""
    return counts.reindex(every, fill_value=0).groupby(level=1).mean()


def draw_by_second(axes: Axes, messages: pd.DataFrame, shares: Mapping[str, float]) -> None:
    """Curves of percentiles by the second in which messages were due, mean over trials; lost ones are infinite."""
    by_second = messages.groupby(["trial", messages["intended_s"].floordiv(1)])["response_time_ms"]
    for place, (label, share) in enumerate(shares.items()):
        of_trials = by_second.agg(_percentile, share)
        mean = of_trials.groupby(level=1).mean()
        x, y = mean.index + 0.5, mean.replace(np.inf, np.nan)
        axes.plot(x, y, marker=".", label=label, color=PALETTE[place], linestyle=DASHES[place])
        crosses(axes, x[y.isna()], PALETTE[place])


def together(times: Iterable[float], near: float) -> list[tuple[float, float]]:
    """The times, each as its own begin and end; three or more that follow each other closely are one, from to."""
    groups: list[list[float]] = []
    for time in sorted(times):
        if groups and time - groups[-1][-1] <= near:
            groups[-1].append(time)
        else:
            groups.append([time])
    marks = ([(of[0], of[-1])] if len(of) > 2 else [(time, time) for time in of] for of in groups)
    return list(chain.from_iterable(marks))


def drawn_processes(machine: pd.DataFrame) -> list[str]:
    """Ours, then as many of others as there are colours left, those first that used most."""
    used = machine.groupby("process")["cpu_percent"].sum().sort_values(ascending=False)
    is_other = used.index.astype(str).str.startswith("other")
    ours, others = sorted(used.index[~is_other]), used.index[is_other]
    return [*ours, *others[: max(len(PALETTE) - len(ours), 0)]]


def _tail(name: str, groups: Iterator[tuple[str | None, pd.DataFrame, str, int]]) -> Picture:
    figure, [axes] = panel()
    for label, rows, colour, place in groups:
        times = np.sort(rows["response_time_ms"].fillna(np.inf).to_numpy(float))
        beyond = 1 - np.arange(1, len(times) + 1) / max(len(times), 1)
        shown = np.isfinite(times) & (beyond * len(times) >= LEAST_BEYOND)
        x, y = _thinned(times[shown], beyond[shown])
        axes.plot(x, y, color=colour, linestyle=DASHES[place % 8], label=label, drawstyle="steps-post")
    axes.set(title=name, xlabel=_RESPONSE_TIME, ylabel="share of messages that took longer", xscale="log", yscale="log")
    axes.set_ylim(top=1)
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    return finished(figure, f"Share of messages that took longer than each response time, {name}")


def _curves(run: Run, rows: pd.DataFrame, column: str, x_label: str, y_label: str) -> list[Picture]:
    """An ECDF of what is known in each panel; what is infinite never came, and keeps the curve below 1."""
    pictures = []
    for name, groups in _panels(run, rows.dropna(subset=column)):
        figure, [axes] = panel()
        is_positive = False
        for label, of, colour, place in groups:
            values = np.sort(of[column].to_numpy(float))
            x, y = _thinned(values, np.arange(1, len(values) + 1) / max(len(values), 1))
            x, y = x[np.isfinite(x)], y[np.isfinite(x)]
            is_positive |= bool(x.size) and x[0] > 0
            x, y = np.append(x[:1], x), np.append(0 * y[:1], y)  # the first step begins at 0
            axes.plot(x, y, color=colour, linestyle=DASHES[place % 8], label=label, drawstyle="steps-post")
        axes.axhline(0.99, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=_titled(run, name), xlabel=x_label, ylabel=y_label, ylim=(0, 1.02))
        if is_positive:
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        pictures.append(finished(figure, f"{y_label.capitalize()} against {x_label}, {name}"))
    return pictures


def _thinned(x: Values, y: Values) -> tuple[Values, Values]:
    """Enough points for a curve, the last hundred among them: the tail is what is looked at."""
    if len(x) <= _CURVE_POINTS:
        return x, y
    tail_points = np.arange(len(x) - 100, len(x))
    kept = np.unique(np.concatenate([np.linspace(0, len(x) - 1, _CURVE_POINTS).astype(int), tail_points]))
    return x[kept], y[kept]


def _density(axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", label: str | None, colour: str) -> None:
    """Bands of many points by time: the median, and from 1 to 99 %."""
    width_s = max((x.max() - x.min()) / 60, 1e-9)
    bins = y.groupby((x // width_s) * width_s + width_s / 2)
    low, middle, high = (bins.quantile(share) for share in (0.01, 0.5, 0.99))
    axes.fill_between(low.index, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(middle.index, middle, color=colour, label=label)


def _panels(run: Run, rows: pd.DataFrame) -> Iterator[tuple[str, Iterator[tuple[str | None, pd.DataFrame, str, int]]]]:
    """For each condition: its name, and (label, rows, colour, place) of each curve."""
    rows, condition, colour = _with_roles(run, rows)
    for name, of in rows.groupby(condition, observed=True):
        groups = _groups(of, colour)
        yield str(name), ((label, group, PALETTE[place % 8], place) for place, label, group in groups)


def _groups(rows: pd.DataFrame, colour: str | None) -> Iterator[tuple[int, str | None, pd.DataFrame]]:
    """(Place among all values of the colour, which decides how it is drawn; its label; its rows)."""
    if colour is None:
        yield 0, None, rows
        return
    places = list(rows[colour].cat.categories)
    for label, of in rows.groupby(colour, observed=True):
        yield places.index(label), str(label), of


def _with_roles(run: Run, rows: pd.DataFrame) -> tuple[pd.DataFrame, str, str | None]:
    """The rows, and which of their columns is the condition, and which the colour.

    The condition is the first key that was varied, the colour the second; of more keys, all but the first are joined in
    a column of their own, so that no curve is of several variants.
    """
    condition, *others = run.conditions
    if len(others) < 2:
        return rows, condition, others[0] if others else None
    trials = run.trials.sort_values(others, kind="stable")
    labels = trials[others].astype(str).agg(", ".join, axis="columns")
    together = rows["trial"].map(dict(zip(trials["trial"], labels, strict=True)))
    colour = ", ".join(others)
    rows = rows.assign(**{colour: pd.Categorical(together, categories=labels.unique(), ordered=True)})
    return rows, condition, colour


def _titled(run: Run, name: str) -> str:
    condition = run.conditions[0]
    return name if condition in ("link", "variant") else f"{condition} = {name}"


#: Of a report, in its order.
ALL: tuple[Callable[[Run], Gallery], ...] = (
    distribution, tail, percentile_table, over_time, second_copy, seconds, one_way_delay, fan_out, jitter, cpu,
)  # fmt: skip
#: Of several runs in one report: what is drawn in a panel for each variant.
SIDE_BY_SIDE = (distribution, tail, percentile_table, over_time, one_way_delay, fan_out, jitter)

"""What the link did: its delay in each direction, and its queues beside the response times of the same seconds."""

from loadtests.analysis.pictures import MARKERS, PALETTE, Gallery, finished, fitting, from_zero, panel, plain_log
from loadtests.analysis.plots import draw_by_second, response_times
from loadtests.analysis.read import Run

_DIRECTIONS = {"up": "client to server", "down": "server to client"}


def link_delay(run: Run) -> Gallery:
    """One-way delay in each direction, as probes found it before and after each trial, within its tolerance."""
    question = "Which way was slow?"
    rows = run.table("link")
    rows = rows[(rows["metric"] == "delay_ms") & rows["measured"].notna()]
    if rows.empty:
        return Gallery(question, [], "No one-way delay was measured: the run used no link of its own.")
    names = list(rows["variant"].cat.remove_unused_categories().cat.categories)
    pictures = []
    for direction, words in _DIRECTIONS.items():
        figure, [axes] = panel()
        for place, (path, of) in enumerate(rows[rows["direction"] == direction].groupby("path", sort=True)):
            at = [names.index(name) + (place - 0.5) * 0.2 for name in of["variant"]]
            axes.vlines(at, of["low"], of["high"], color=PALETTE[place], linewidth=6, alpha=0.2)
            axes.plot(at, of["measured"], MARKERS[place], color=PALETTE[place], ms=5, label=str(path))
        is_long = len(names) > 2 and max(map(len, names)) > 24
        axes.set_xticks(
            range(len(names)),
            [fitting(name, 42 if is_long else 24) for name in names],
            rotation=90 if is_long else 25 if len(names) > 2 else 0,
            ha="right" if len(names) > 2 and not is_long else "center",
        )
        figure.set_figheight(figure.get_figheight() + (2.2 if is_long else 0))
        axes.set(
            title=f"{direction}: {words}", ylabel="one-way delay (ms)", yscale="log", xlim=(-0.5, len(names) - 0.5)
        )
        plain_log(axes.yaxis)
        pictures.append(finished(figure, f"Median one-way delay {words} of each link, before and after each trial"))
    return Gallery(question, pictures, "Medians of probes before and after each trial. Pale bars: the tolerance.")


def queue(run: Run) -> Gallery:
    """Response time, and how long packets queued, of the same seconds: RTT above the smallest of each connection."""
    messages = response_times(run, "intended_s")
    tcp = run.table("tcp", ["side", "time_s", "rtt_ms", "min_rtt_ms"])
    tcp = tcp[tcp["time_s"] >= 0].assign(queue_ms=tcp["rtt_ms"] - tcp["min_rtt_ms"])
    pictures = []
    for variant, rows in messages.groupby("variant", observed=True):
        figure, [response, waiting] = panel(2)
        draw_by_second(response, rows, {"median": 0.5, "p95": 0.95})
        ends = tcp[tcp["variant"] == variant]
        for place, side in enumerate(("client", "server"), 2):
            of = ends[ends["side"] == side]
            mean = of.groupby(of["time_s"].floordiv(1))["queue_ms"].mean()
            waiting.plot(
                mean.index + 0.5, mean, label=f"{side}'s end", color=PALETTE[place], linestyle=("-", "--")[place - 2]
            )
        response.set(title=str(variant), ylabel="resp. (ms)")
        waiting.set(xlabel="time (s)", ylabel="queue (ms)")
        for axes in (response, waiting):
            from_zero(axes)
        pictures.append(finished(figure, f"Response time, and RTT above its smallest, of the same seconds: {variant}"))
    note = (
        "Queue: how far TCP's smoothed RTT is above the smallest of its connection; retransmissions raise it too. "
        "Cross: so many messages were lost that the percentile is infinite."
    )
    return Gallery("Was it a queue?", pictures, note)

"""A figure of one message's way: time from left to right, who had it from top to bottom, a line for each packet."""

from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from loadtests.journey.journey import Crossing

#: Colour-blind safe (Okabe and Ito).
_FIRST, _REPEATED, _LOST = "#0072B2", "#E69F00", "#D55E00"
_LEGEND: dict[str, tuple[str, Literal["-", ":"]]] = {
    "sent": (_FIRST, "-"),
    "retransmitted": (_REPEATED, "-"),
    "lost": (_LOST, ":"),
}


def draw(
    crossings: list[Crossing], sender: str, times_s: dict[str, float], zero_s: float, title: str, file: Path
) -> None:
    """Write an SVG.

    Args:
        sender: the nickname of whoever sent the message.
        times_s: what else happened to it at the sender, epoch times by name (`intended`, `written`, `echoed`).
        zero_s: the epoch time that is 0 in the figure.
    """
    # Nicknames of one load differ in a number at their end: shorter ones come first.
    receivers = sorted(
        {one.nick for one in crossings if one.way == "down"} - {sender}, key=lambda nick: (len(nick), nick)
    )
    lanes = [*receivers, sender, "server"]
    height = {name: len(lanes) - number for number, name in enumerate(lanes)}
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.32 * len(lanes)), layout="constrained")
    for one in crossings:
        ends = [height[one.nick], height["server"]]
        begin, end = ends if one.way == "up" else ends[::-1]
        arrived_s = one.arrived_s
        name = "lost" if arrived_s is None else "retransmitted" if one.is_repeated else "sent"
        colour, style = _LEGEND[name]
        left_ms = (one.left_s - zero_s) * 1e3
        if arrived_s is None:
            axes.plot([left_ms, left_ms], [begin, (begin + end) / 2], color=colour, linestyle=style)
            axes.plot(left_ms, (begin + end) / 2, "x", color=colour)
        else:
            axes.plot([left_ms, (arrived_s - zero_s) * 1e3], [begin, end], color=colour, linestyle=style, linewidth=1)
    for at_s, names in _at_once(times_s).items():
        point = ((at_s - zero_s) * 1e3, height[sender])
        axes.plot(*point, "o", color="black", markersize=4)
        axes.annotate(names, point, xytext=(0, 6), textcoords="offset points", ha="left", fontsize=9)
    axes.set_yticks(list(height.values()), list(height))
    axes.set_xlabel("time since the message was intended, ms")
    axes.set_title(title)
    handles = [Line2D([], [], color=colour, linestyle=style, label=name) for name, (colour, style) in _LEGEND.items()]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    figure.savefig(file)
    plt.close(figure)


def _at_once(times_s: dict[str, float]) -> dict[float, str]:
    """Time → names of what happened then; what lies too close together for two texts has one."""
    close_s = 0.1 * (max(times_s.values()) - min(times_s.values())) if times_s else 0.0
    found: dict[float, str] = {}
    for name, at_s in times_s.items():
        place = next((other_s for other_s in found if at_s - other_s < close_s), at_s)
        found[place] = f"{found[place]}, {name}" if place in found else name
    return found

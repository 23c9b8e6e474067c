"""`chatlab profiles`: the links that come with chatlab."""

import argparse

from loadtests.commands.words import table
from loadtests.errors import ExitCode
from loadtests.link.linkfile import known_links, load_profile
from loadtests.link.model.profile import Direction, GilbertElliott, LinkProfile, TimedBursts

_HEADER = ("link", "RTT ms", "jitter ms", "rate Mbit/s", "loss %", "bursts", "queue ms", "description", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab profiles`: none."""
    parser.description = (
        "List the links that come with chatlab. Two values with a slash are up (client to server) and down; jitter is "
        "that of one way; bursts is the mean length of a burst of losses."
    )


def main(_arguments: argparse.Namespace) -> int:
    """Print a line for each."""
    rows = [_row(load_profile(name)) for name in known_links()]
    print(table(_HEADER, rows, left=("link", "description", "source")))
    return ExitCode.PASSED


def _row(link: LinkProfile) -> tuple[str, ...]:
    ways = (link.up, link.down)
    changes = (
        link.timeline
        and f" (changes {'every' if link.cycle_s else 'over'} {link.cycle_s or link.timeline[-1].at_s:g} s)"
    )
    return (
        link.name,
        f"{link.rtt_s * 1e3:.4g}",
        _both(*(f"{way.jitter_s * 1e3:.3g}" if way.jitter_s else "–" for way in ways)),
        _both(*(_rate(way) for way in ways)),
        _both(*(f"{way.loss_ratio * 100:.3g}" for way in ways)),
        _both(*(_burst(way) for way in ways)),
        _both(*(f"{way.queue_s * 1e3:.0f}" if way.queue_s else "–" for way in ways)),
        f"{link.description}{changes or ''}",
        link.source,
    )


def _both(up: str, down: str) -> str:
    return up if up == down else f"{up}/{down}"


def _rate(way: Direction) -> str:
    rate_bps = way.trace.mean_bps if way.trace else way.rate_bps
    return f"{rate_bps / 1e6:g}" if rate_bps else "∞"


def _burst(way: Direction) -> str:
    match way.loss:
        case GilbertElliott(r=r):
            return f"{1 / r:.3g} packets"
        case TimedBursts(bad_s=bad_s):
            return f"{bad_s * 1e3:.3g} ms"
    return "–"

"""Every link of `scenarios/links/`, built and measured: `python -m loadtests.link.survey` makes the README's table."""

import sys
from dataclasses import replace
from statistics import fmean

from loadtests.errors import ExitCode
from loadtests.link.lab import open_lab
from loadtests.link.linkfile import known_links, load_profile
from loadtests.link.measure.bulk import measure_rate
from loadtests.link.measure.calibrate import (
    DELAY_S,
    DELAY_SHARE,
    RATE_SHARE,
    loss_window,
    median_s,
    model_streams,
    plan_probes,
)
from loadtests.link.measure.probes import PROBE_BYTES, ProbeStream, run_probes
from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.link.sandbox.priority import realtime_priority

_JITTER_PROBES = 1000
_LOSS_PROBES, _LOSS_INTERVAL_S, _SHARE_OF_RATE = 5000, 0.0012, 0.5
#: How seldom chance leaves the interval of a loss.
_ALPHA = 0.01


def survey_link(link: LinkProfile) -> tuple[str, bool]:
    """A row of the table, and whether all of it is within tolerance; the lab is open."""
    ways = {"up": link.up, "down": link.down}
    streams = [_delay_stream(way, direction) for way, direction in ways.items()]
    run_probes(streams)
    rtt_s = sum(map(median_s, streams))
    expected_s = sum(fmean(map(median_s, model_streams(stream, ways[stream.direction]))) for stream in streams)
    trusted = abs(rtt_s - expected_s) <= DELAY_S + DELAY_SHARE * expected_s

    losses = []
    streams = [_loss_stream(way, direction) for way, direction in ways.items()]
    run_probes(streams)
    for stream in streams:
        low, high = loss_window(ways[stream.direction], stream, _ALPHA)
        lost = 1 - stream.arrived / stream.count
        trusted &= low <= lost <= high
        losses.append(f"{lost:.2%} ({low:.2%} to {high:.2%})" if high else f"{lost:.2%}")

    rates = []
    for way, direction in ways.items():
        if direction.rate_bps:
            ratio = measure_rate("primary", way, direction).rate_bps / direction.rate_bps
            trusted &= abs(ratio - 1) <= RATE_SHARE
            rates.append(f"{direction.rate_bps / 1e6:g} ({ratio - 1:+.1%})")
        else:
            rates.append("–")
    cells = [
        link.name,
        f"{expected_s * 1e3:.2f}",
        f"{rtt_s * 1e3:.2f}",
        *losses,
        *rates,
        "yes" if trusted else "**no**",
    ]
    return f"| {' | '.join(cells)} |", trusted


def _delay_stream(way: str, direction: Direction) -> ProbeStream:
    """More probes than a trial takes where there is jitter, for the tolerance leaves no room for chance."""
    stream = plan_probes("primary", way, direction)
    return replace(stream, count=_JITTER_PROBES) if direction.jitter_s else stream


def _loss_stream(way: str, direction: Direction) -> ProbeStream:
    interval_s = max(_LOSS_INTERVAL_S, direction.transmission_s(PROBE_BYTES) / _SHARE_OF_RATE)
    return ProbeStream("primary", way, _LOSS_PROBES, interval_s, direction.delay_s + 4 * direction.jitter_s)


def main() -> int:
    """Print the table, of all links or of those named; exit code 3 if any link is not what it says."""

    def inside() -> int:
        print(
            "| link | RTT ms, expected | measured | loss up (99 % interval) | loss down | Mbit/s up | down | within |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        trusted = True
        for name in sys.argv[1:] or known_links():
            link = load_profile(name)
            with open_lab({"primary": link}, "emulator"), realtime_priority():
                row, within = survey_link(link)
            print(row, flush=True)
            trusted &= within
        return ExitCode.PASSED if trusted else ExitCode.NOT_TRUSTWORTHY

    return run_in_lab(inside)


if __name__ == "__main__":
    sys.exit(main())

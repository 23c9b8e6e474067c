"""`chatlab profiles`: the links that come with chatlab."""

import argparse

from loadtests.errors import ExitCode
from loadtests.link.linkfile import known_links, load_profile
from loadtests.link.model.profile import LinkProfile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`chatlab profiles` has no options."""


def main(_arguments: argparse.Namespace) -> int:
    """Print a line for each."""
    width = max(map(len, known_links()))
    for name in known_links():
        print(f"{name:{width}}  {_summary(load_profile(name))}")
    return ExitCode.PASSED


def _summary(link: LinkProfile) -> str:
    ways = (link.up, link.down)
    rates = "/".join(f"{way.rate_bps / 1e6:g}" if way.rate_bps else "∞" for way in ways)
    losses = "/".join(f"{way.loss_ratio:.2%}" for way in ways)
    return f"{link.rtt_s * 1e3:6g} ms  {rates:>10} Mbit/s up/down  loss {losses:13}  {link.description}"

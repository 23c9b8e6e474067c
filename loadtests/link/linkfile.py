"""The YAML of a link: a file in `scenarios/links/`, or a block inside a scenario, decoded into a LinkProfile."""

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtests.config.yamlfile import Document, KeyPath
from loadtests.data import LINKS
from loadtests.errors import ConfigError
from loadtests.link.model import timeline
from loadtests.link.model.profile import PATHS, Direction, LinkProfile
from loadtests.link.model.vocabulary import WAYS, LinkBlock


def known_links() -> list[str]:
    """The names of the profiles in `scenarios/links/`."""
    return sorted(path.stem for path in LINKS.glob("*.yaml"))


def load_profile(link: str | Path) -> LinkProfile:
    """The profile with this name in `scenarios/links/`, or in this file.

    Raises ConfigError: no such link, or the file is wrong.
    """
    name = str(link)
    if isinstance(link, Path) or _is_file(name):
        path = Path(link)
    else:
        path = LINKS / f"{name}.yaml"
        if not os.path.isfile(path):  # a Path raises where a name is too long for any file
            close = difflib.get_close_matches(name, known_links(), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"unknown link {name!r}; {hint}known: {', '.join(known_links())}; or the path of a file")
    return _profile(anchored(Document.read(path), path.parent), (), path.stem)


def anchored(document: Document, folder: Path) -> Document:
    """The document with the files that it names (links and traces) taken from `folder`, where they are relative."""
    return replace(document, data=_anchored(document.data, folder, ""))


def _anchored(value: Any, folder: Path, key: str) -> Any:
    """`key`: the nearest one above that is not a path or a direction, as `link` in `link: {primary: FILE}`."""
    if isinstance(value, dict):
        return {name: _anchored(each, folder, key if name in (*PATHS, *WAYS) else name) for name, each in value.items()}
    if isinstance(value, list):
        return [_anchored(each, folder, key) for each in value]
    is_file = key.rpartition(".")[2] == "trace" or (key.partition(".")[0] == "link" and _is_file(value))
    return str((folder / value).absolute()) if is_file else value


def _is_file(link: str) -> bool:
    """Whether a link is given by its file, not by its name."""
    return "/" in link or link.endswith((".yaml", ".yml"))


def profile_at(document: Document, path: KeyPath) -> LinkProfile:
    """The link that the document says at `path`: a name, the path of a file, or the block itself.

    Raises ConfigError: at `path`, or where the link's own file is wrong.
    """
    value = _at(document, path)
    if isinstance(value, dict):
        return _profile(document, path, "inline")
    if not isinstance(value, str):
        raise document.error(path, f"expected a link: its name, its file or its block; got {value!r}")
    try:
        return load_profile(value)
    except ConfigError as error:
        raise document.error(path, str(error)) from None


def _at(document: Document, path: KeyPath) -> Any:
    value = document.data
    for step in path:
        value = value[step]
    return value


#: Keys of other tools that mean something else here, or nothing good anywhere.
_REFUSED = {
    "latency": "ambiguous: give rtt (there and back) or delay (one way)",
    "limit": "netem's limit counts delayed packets too; use queue, which does not",
    "correlation": "netem's correlation does not do what it says; for bursts use loss: {gilbert_elliott: …}",
    "slot": "not offered: netem's slots follow no seed; a trace says when the link can send",
}


def _profile(document: Document, path: KeyPath, name: str) -> LinkProfile:
    """Decode the block at `path`, refusing first what is ambiguous and last what does not fit together."""
    for key, sentence in _REFUSED.items():
        for place in _said(document, path, key):
            raise document.error(place, sentence)
    block = document.convert(LinkBlock, path)
    rtt, delay = (_said(document, path, key) for key in ("rtt", "delay"))
    if rtt and delay:
        # Both are in order: the one that is said first in a later entry of the timeline is the one too many.
        place = max(delay[0], rtt[0], key=lambda place: _entry_of(place[len(path) :]))
        other = "delay" if place == rtt[0] else "rtt"
        raise document.error(place, f"not together with {other}: rtt is there and back, delay is one way")
    if not _said(document, path, "rate") and not _said(document, path, "trace"):
        for place in _said(document, path, "queue"):
            raise document.error(place, "a queue forms only in front of a rate: give a rate too")
    changes = timeline.changes({way: block.way(way) for way in WAYS}, block.timeline)
    if block.cycle is not None and block.cycle <= changes[-1].at_s:
        raise document.error(
            (*path, "cycle"), f"must be longer than the timeline, which ends at {changes[-1].at_s:g} s"
        )
    link = LinkProfile(
        name=name,
        description=block.description,
        source=block.source,
        up=changes[0].up,
        down=changes[0].down,
        timeline=tuple(changes[1:]),
        cycle_s=None if block.cycle is None else float(block.cycle),
    )
    for change in changes:
        for direction in (change.up, change.down):
            problem = _contradiction(direction)
            if problem:
                key, sentence = problem
                raise document.error(_said(document, path, key)[-1], sentence)
    return link


def _contradiction(direction: Direction) -> tuple[str, str] | None:
    """A key that does not fit the others, and why."""
    if direction.jitter_s > direction.delay_s:
        values_ms = f"{direction.jitter_s * 1e3:g} ms is more than {direction.delay_s * 1e3:g} ms"
        return "jitter", f"must not exceed the one-way delay: {values_ms}"
    if direction.reorder and not direction.delay_s:
        return "reorder", "packets overtake by skipping the delay: give delay or rtt too"
    if direction.trace and direction.rate_bps:
        return "trace", "not together with rate: a trace is the rate"
    return None


def _entry_of(place: KeyPath) -> int:
    """Which entry of the link's timeline a key is in; -1 for what is said of the beginning."""
    return int(place[1]) if place[0] == "timeline" else -1


def _said(document: Document, path: KeyPath, key: str) -> list[KeyPath]:
    """Where the link block at `path` says `key`: for both ways, for up, for down, or anywhere in its timeline."""
    block = _at(document, path)
    if not isinstance(block, dict):
        return []
    entries = block.get("timeline")
    places = [path]
    if isinstance(entries, list):
        places += [(*path, "timeline", index) for index in range(len(entries))]
    said: list[KeyPath] = []
    for place in places:
        keys = _at(document, place)
        inner = [(place, keys)]
        if isinstance(keys, dict):
            inner += [((*place, way), keys.get(way)) for way in WAYS]
        said += [(*where, key) for where, content in inner if isinstance(content, dict) and key in content]
    return said

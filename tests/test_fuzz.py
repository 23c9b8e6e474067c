"""Whatever bytes come: a short run of what `make fuzz` does for longer, and all that it ever found."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from inputs import WORDS, corpus, inputs
from targets import TARGETS

from chat.protocol.wire import DOWN, UP, LineReader

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("target", "decoder"), [("server", UP), ("client", DOWN)])
def test_fuzzing_begins_with_every_kind_of_message(target: str, decoder: Any) -> None:
    lines = b"".join(WORDS[target]).replace(b"\0", b"\n")
    assert set(decoder.type.__args__) <= {type(message) for message in LineReader(decoder, 1 << 16).feed(lines)}


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once(target: str) -> None:
    for data in corpus(target):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_bytes_come(target: str) -> None:
    examples = 20 if target == "run_directory" else 60  # a run is read whole, and takes a fifth of a second

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs(target))
    def no_harm(data: bytes) -> None:
        TARGETS[target](data)

    no_harm()

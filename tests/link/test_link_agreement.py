"""Real netem and the emulator do the same to packets: measured one after the other inside user-mode Linux."""

import json
import math
import os
import sys

import pytest
from link_helpers import UML, run_in_uml

from loadtests.link.measure.calibrate import loss_window
from loadtests.link.measure.probes import ProbeStream
from loadtests.link.model.profile import Direction, GilbertElliott

#: The first of these tests waits for the machine inside to start and to measure, about a minute.
pytestmark = [pytest.mark.timeout(400), pytest.mark.realtime("links")]

Figures = dict[str, dict[str, float]]

BURSTS = GilbertElliott(0.01, 0.25)
#: netem draws anew each time: chance alone moves a figure out of its window about once in a million runs.
ALPHA, STANDARD_ERRORS = 1e-6, 5


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    """Link → backend → figure → value."""
    if not os.environ.get("CI"):
        pytest.skip("takes a minute; CI=true runs it")
    command = ["env", "PYTHONPATH=.", sys.executable, str(UML / "measure.py")]
    code, output = run_in_uml(command, tmp_path_factory.mktemp("uml"), timeout_s=380)
    assert code == 0, output
    found: dict[str, Figures] = json.loads(output)
    print(json.dumps(found, indent=1))
    return found


def test_delay_and_jitter(measured: dict[str, Figures]) -> None:
    """Normal jitter of 4 ms around 20 ms: median and interquartile range."""
    netem, emulator = measured["normal"]["netem"], measured["normal"]["emulator"]
    assert emulator["median_ms"] == pytest.approx(netem["median_ms"], rel=0.02, abs=1)
    assert emulator["spread_ms"] == pytest.approx(netem["spread_ms"], rel=0.25)


@pytest.mark.parametrize("backend", ["netem", "emulator"])
@pytest.mark.parametrize(
    ("name", "direction"),
    [("random", Direction(loss=0.02)), ("bursts", Direction(loss=GilbertElliott(0.01, 0.25)))],
)
def test_loss(name: str, direction: Direction, backend: str, measured: dict[str, Figures]) -> None:
    """Each backend's loss is inside the interval of the same model."""
    figures = measured[name][backend]
    low, high = loss_window(direction, ProbeStream("primary", "up", int(figures["packets"]), 0, 0), ALPHA)
    assert low <= figures["loss"] <= high


@pytest.mark.parametrize("backend", ["netem", "emulator"])
def test_bursts_are_as_long(backend: str, measured: dict[str, Figures]) -> None:
    """The length of a burst is geometric with parameter r: mean 1/r, standard deviation sqrt(1 - r)/r."""
    figures = measured["bursts"][backend]
    standard_error = math.sqrt((1 - BURSTS.r) / figures["bursts"]) / BURSTS.r
    assert figures["burst"] == pytest.approx(1 / BURSTS.r, abs=STANDARD_ERRORS * standard_error)


def test_goodput(measured: dict[str, Figures]) -> None:
    """A bulk transfer over 5 Mbit/s with a queue of 50 ms, cubic on both."""
    ratio = measured["narrow"]["emulator"]["goodput_bps"] / measured["narrow"]["netem"]["goodput_bps"]
    assert 0.85 < ratio < 1.15

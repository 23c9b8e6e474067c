"""Real netem and the emulator do the same to packets: measured one after the other inside user-mode Linux."""

import json
import os
import sys

import pytest
from link_helpers import UML, run_in_uml

from loadtests.link.calibrate import loss_window
from loadtests.link.probes import ProbeStream
from loadtests.link.profile import Direction, GilbertElliott

#: The first of these tests waits for the machine inside to start and to measure, about a minute.
pytestmark = pytest.mark.timeout(180)

Figures = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    """Link → backend → figure → value."""
    if not os.environ.get("CI"):
        pytest.skip("takes a minute; CI=true runs it")
    command = ["env", "PYTHONPATH=.", sys.executable, str(UML / "measure.py")]
    code, output = run_in_uml(command, tmp_path_factory.mktemp("uml"), timeout_s=170)
    assert code == 0, output
    found: dict[str, Figures] = json.loads(output)
    print(json.dumps(found, indent=1))
    return found


def test_delay_and_jitter(measured: dict[str, Figures]) -> None:
    """Normal jitter of 4 ms around 20 ms: median and interquartile range."""
    netem, emulator = measured["normal"]["netem"], measured["normal"]["emulator"]
    assert emulator["median_ms"] == pytest.approx(netem["median_ms"], rel=0.02, abs=1)
    assert emulator["spread_ms"] == pytest.approx(netem["spread_ms"], rel=0.15)


@pytest.mark.parametrize("backend", ["netem", "emulator"])
@pytest.mark.parametrize(
    ("name", "direction"),
    [("random", Direction(loss=0.02)), ("bursts", Direction(loss=GilbertElliott(0.01, 0.25)))],
)
def test_loss(name: str, direction: Direction, backend: str, measured: dict[str, Figures]) -> None:
    """Each backend's loss is inside the interval of the same model."""
    figures = measured[name][backend]
    low, high = loss_window(direction, ProbeStream("primary", "up", int(figures["packets"]), 0, 0))
    assert low <= figures["loss"] <= high


def test_bursts_are_as_long(measured: dict[str, Figures]) -> None:
    netem, emulator = measured["bursts"]["netem"], measured["bursts"]["emulator"]
    assert emulator["burst"] == pytest.approx(netem["burst"], rel=0.15)


def test_goodput(measured: dict[str, Figures]) -> None:
    """A bulk transfer over 5 Mbit/s with a queue of 50 ms, cubic on both."""
    ratio = measured["narrow"]["emulator"]["goodput_bps"] / measured["narrow"]["netem"]["goodput_bps"]
    assert 0.85 < ratio < 1.15

"""Pulse: quiet and silence. No clock."""

from chat.client.pulse import Pulse, patience_ns


def test_patience_follows_the_measured_round_trip_time() -> None:
    assert patience_ns(1_000, 500) == 1_000_000_000, "never less than a second"
    assert patience_ns(600_000, 50_000) == 4 * 800_000_000


def test_quiet_is_when_nothing_comes_and_silence_when_no_answer_comes() -> None:
    pulse = Pulse(100)
    assert (pulse.quiet_ns(150), pulse.silent_ns(150)) == (50, 0)
    pulse.asked(160)
    pulse.asked(170)
    assert (pulse.quiet_ns(180), pulse.silent_ns(180)) == (0, 20)
    pulse.heard(190)
    assert (pulse.quiet_ns(195), pulse.silent_ns(195)) == (5, 0)

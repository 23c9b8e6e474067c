"""Link files: what can be said, what it means, and how a wrong one is refused."""

import itertools
from pathlib import Path

import pytest

from loadtests.config.yamlfile import Document
from loadtests.errors import ConfigError
from loadtests.link.linkfile import known_links, load_profile, profile_at
from loadtests.link.model.profile import Direction, GilbertElliott, LinkProfile, TimedBursts, Trace
from loadtests.link.model.trace import with_trace


def profile(text: str) -> LinkProfile:
    return profile_at(Document.parse(text, "test.yaml"), ())


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        profile(text)
    return str(caught.value)


def test_rtt_is_split_in_halves() -> None:
    link = profile("rtt: 40ms")
    assert link.up == link.down == Direction(delay_s=0.02)
    assert link.rtt_s == 0.04


def test_delay_is_one_way() -> None:
    assert profile("delay: 20ms").rtt_s == 0.04


def test_a_direction_overrides_the_link() -> None:
    link = profile("{delay: 20ms, loss: 2%, jitter: 4ms, up: {loss: 3%, jitter: 0}, down: {delay: 30ms}}")
    assert link.up == Direction(delay_s=0.02, loss=0.03)
    assert link.down == Direction(delay_s=0.03, loss=0.02, jitter_s=0.004)


def test_gilbert_elliott_by_the_names_of_netem() -> None:
    link = profile("loss: {gilbert_elliott: {p: 1%, r: 25%, 1-h: 50%, 1-k: 0.1%}}")
    assert link.up.loss == GilbertElliott(0.01, 0.25, 0.5, 0.001)
    assert profile("loss: {gilbert_elliott: {p: 1%, r: 25%}}").up.loss == GilbertElliott(0.01, 0.25)


def test_mean_loss_of_gilbert_elliott() -> None:
    """The means that the same parameters have in netem's documentation of the model."""
    assert GilbertElliott(0.01, 0.2).mean_loss == pytest.approx(0.0476, abs=1e-4)
    assert GilbertElliott(0.01, 0.2, 0.5, 0.001).mean_loss == pytest.approx(0.0248, abs=1e-4)


@pytest.mark.parametrize(
    ("queue", "packets"),
    [("queue: 100ms", 42), ("queue: 50packets", 50), ("queue: 0", 1), ("", 42)],
)
def test_queue_in_packets(queue: str, packets: int) -> None:
    """A time is filled with full-size packets (1514 bytes on Ethernet), rounded up."""
    assert profile(f"rate: 5mbit\n{queue}").up.queue_packets == packets


def test_a_queue_by_default_holds_the_initial_window() -> None:
    assert profile("rate: 64kbit").up.queue_packets == 10
    assert profile("{rate: 64kbit, queue: 100ms}").up.queue_packets == 1


def test_a_queue_only_where_there_is_a_rate() -> None:
    link = profile("{queue: 100ms, down: {rate: 5mbit}}")
    assert (link.up.queue_packets, link.down.queue_packets) == (0, 42)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("latency: 20ms", "test.yaml:1: latency: ambiguous: give rtt (there and back) or delay (one way)"),
        ("rate: 1mbit\nup:\n  latency: 1ms", "test.yaml:3: up.latency: ambiguous: give rtt"),
        (
            "rtt: 40ms\ndelay: 20ms",
            "test.yaml:2: delay: not together with rtt: rtt is there and back, delay is one way",
        ),
        ("rtt: 40ms\nup: {delay: 20ms}", "test.yaml:2: up.delay: not together with rtt"),
        (
            "up: {delay: 2ms}\ntimeline:\n  - {at: 1s, loss: 1%}\n  - {at: 2s, rtt: 4ms}",
            "test.yaml:4: timeline.1.rtt: not together with delay: rtt is there and back, delay is one way",
        ),
        ("up: {rtt: 40ms}", "test.yaml:1: up.rtt: unknown key; "),
        ("rtt: 40", "test.yaml:1: rtt: expected a time with a unit (us, ms, s, min, h) such as 50ms, got '40'"),
        ("\nloss: 2", "test.yaml:2: loss: expected a percentage from 0% to 100%"),
        ("loss: 120%", "test.yaml:1: loss: expected a percentage from 0% to 100%"),
        ("loss: 2% 25%", "test.yaml:1: loss: one percentage only, got '2% 25%': netem's correlation makes"),
        ("loss: 2 percent", "test.yaml:1: loss: expected a percentage from 0% to 100%"),
        ("{rtt: 1s, duplicate: 2% 25%}", "test.yaml:1: duplicate: one percentage only"),
        ("limit: 1000", "test.yaml:1: limit: netem's limit counts delayed packets too; use queue"),
        ("up: {correlation: 25%}", "test.yaml:1: up.correlation: netem's correlation does not do what it says"),
        ("reorder: 1%", "test.yaml:1: reorder: packets overtake by skipping the delay: give delay or rtt too"),
        (
            "{rtt: 4ms, jitter: {size: 1ms, distribution: bell}}",
            "jitter.distribution: expected one of: uniform",
        ),
        ("timeline: [{loss: 1%}]", "test.yaml:1: timeline.0: the key at is missing: when it happens"),
        ("timeline: [{at: 1s, ramp: 1s, outage: 1s}]", "timeline.0: an outage comes at once: no ramp"),
        ("timeline: [{at: 1s, jitter: {size: 1ms}}]", "timeline.0: a trace, a distribution and keep_order hold"),
        ("timeline: [{at: 9s, loss: 1%}]\ncycle: 5s", "test.yaml:2: cycle: must be longer than the timeline"),
        ("rtt: 4ms\ntimeline:\n  - {at: 1s, jitter: 3ms}", "test.yaml:3: timeline.0.jitter: must not exceed"),
        ("rtt: 4ms\ntimeline:\n  - {at: 1s, delay: 3ms}", "test.yaml:3: timeline.0.delay: not together with rtt"),
        ("trace: none.trace", "none.trace': No such file or directory"),
        (
            "loss: {gilbert_elliott: {p: 1%}}",
            "test.yaml:1: loss.gilbert_elliott: expected p and r (steps per packet)",
        ),
        ("loss: {gilbert_elliott: {p: 0%, r: 0%}}", "loss.gilbert_elliott: p and r must not both be 0"),
        ("loss: {markov: 1}", "loss.markov: unknown key; allowed: gilbert_elliott"),
        ("rate: 0", "test.yaml:1: rate: must be more than 0; leave it out for an unlimited link"),
        ("rate: 5mbps", "test.yaml:1: rate: expected a rate with a unit"),
        ("rate: 5mbit\nqueue: 3", "test.yaml:2: queue: expected a time with a unit"),
        ("rate: 5mbit\nqueue: many", "or a number of packets such as 50packets; got 'many'"),
        ("rtt: 40ms\nqueue: 100ms", "test.yaml:2: queue: a queue forms only in front of a rate: give a rate too"),
        (
            "delay: 20ms\nup: {jitter: 30ms}",
            "test.yaml:2: up.jitter: must not exceed the one-way delay: 30 ms is more than 20 ms",
        ),
        ("los: 2%", "test.yaml:1: los: unknown key; did you mean 'loss'? allowed: delay, jitter, loss, duplicate, "),
        ("[1, 2]", "test.yaml: expected a link: its name, its file or its block"),
    ],
)
def test_refusals(text: str, sentence: str) -> None:
    """One line with file, line and key, and what is allowed."""
    said = refusal(text)
    assert sentence in said
    assert "\n" not in said


def test_a_link_inside_a_scenario_is_located_there() -> None:
    document = Document.parse("users: 1\nlink:\n  primary: 4g\n  secondary:\n    loss: 2\n", "scenario.yaml")
    assert profile_at(document, ("link", "primary")) == load_profile("4g")
    with pytest.raises(ConfigError, match=r"scenario\.yaml:5: link\.secondary\.loss: expected a percentage"):
        profile_at(document, ("link", "secondary"))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    document = Document.parse("link: losy-wifi", "scenario.yaml")
    with pytest.raises(ConfigError) as caught:
        profile_at(document, ("link",))
    said = str(caught.value)
    assert said.startswith("scenario.yaml:1: link: unknown link 'losy-wifi'; did you mean 'lossy-wifi'? known: 2g, ")


def test_a_link_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("description: Mine\nrtt: 8ms\n")
    assert load_profile(path) == load_profile(str(path))
    assert (load_profile(path).name, load_profile(path).description) == ("mine", "Mine")
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_profile(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", known_links())
def test_each_link_of_ours_says_what_it_is_and_whence(name: str) -> None:
    link = load_profile(name)
    assert link.description
    assert link.source


def test_a_link_as_people_read_it() -> None:
    assert str(profile("{rtt: 40ms, jitter: 4ms, loss: 2%}")) == "inline (each way: delay 20 ms ± 4 ms, loss 2 %)"
    text = "{loss: {gilbert_elliott: {p: 1%, r: 25%}}, up: {rate: 5mbit, queue: 50packets}}"
    assert str(profile(text)) == (
        "inline (up: delay 0 ms, loss 3.85 % in bursts, rate 5 Mbit/s with a queue of 50 packets; "
        "down: delay 0 ms, loss 3.85 % in bursts)"
    )


def test_a_link_said_by_an_option_is_blamed_on_it() -> None:
    document = Document.parse("link: 4g", "scenario.yaml").replaced(
        "link", {"rtt": "1ms", "delay": "1ms"}, "--set link"
    )
    with pytest.raises(ConfigError, match=r"^--set link: link\.delay: not together with rtt"):
        profile_at(document, ("link",))


def test_jitter_with_distribution() -> None:
    link = profile("{rtt: 40ms, jitter: {size: 4ms, distribution: pareto, keep_order: false}, up: {jitter: 2ms}}")
    assert link.down == Direction(delay_s=0.02, jitter_s=0.004, distribution="pareto", keep_order=False)
    assert link.up == Direction(delay_s=0.02, jitter_s=0.002, distribution="pareto", keep_order=False)


def test_a_share_may_have_a_space_before_its_unit() -> None:
    assert profile("loss: 2 %").up.loss == pytest.approx(0.02)


def test_shares_of_packets() -> None:
    link = profile("{delay: 5ms, duplicate: 1%, reorder: 2%, up: {corrupt: 0.1%}}")
    assert link.up == Direction(delay_s=0.005, duplicate=0.01, reorder=0.02, corrupt=0.001)


def test_bursts_in_time() -> None:
    assert profile("loss: {gilbert_elliott: {good: 2s, bad: 100ms, 1-h: 50%}}").up.loss == TimedBursts(2, 0.1, 0.5)


def test_a_trace_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "slow.trace").write_text("12\n24\n")
    link = profile(f"down: {{trace: {tmp_path}/slow.trace, queue: 48ms}}")
    assert link.down.trace == Trace(f"{tmp_path}/slow.trace", pytest.approx(1504 * 8 / 0.012))
    ready = with_trace(link.down).trace
    assert ready is not None
    assert ready.times_ms == (12, 24)
    assert with_trace(link.up) is link.up
    assert link.down.queue_packets == 4
    (tmp_path / "bad.trace").write_text("12\n7\n")
    assert "milliseconds that never fall" in refusal(f"trace: {tmp_path}/bad.trace")


def timeline(text: str, way: str = "up") -> list[tuple[float, Direction]]:
    return list(itertools.islice(profile(text).schedule(way), 12))


def test_changes_leave_alone_what_they_do_not_say() -> None:
    text = "{delay: 5ms, loss: 1%, timeline: [{at: 2s, loss: 3%}, {at: 4s, up: {delay: 8ms}}]}"
    assert timeline(text) == [(2, Direction(delay_s=0.005, loss=0.03)), (4, Direction(delay_s=0.008, loss=0.03))]
    assert timeline(text, "down") == [(2, Direction(delay_s=0.005, loss=0.03))]


def test_an_outage_ends() -> None:
    text = "{delay: 5ms, timeline: [{at: 2s, outage: 3s}, {at: 3s, delay: 7ms}]}"
    assert [(at_s, str(direction)) for at_s, direction in timeline(text)] == [
        (2, "outage"),
        (3, "outage"),
        (5, "delay 7 ms"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "{delay: 5ms, timeline: [{at: 1s, outage: 10s}, {at: 3s, outage: 1s}]}",
        "{delay: 5ms, outage: 11s, timeline: [{at: 3s, outage: 1s}]}",
        "{delay: 5ms, timeline: [{at: 1s, outage: 3s}, {at: 3s, outage: 8s}]}",
    ],
)
def test_of_two_outages_the_one_that_ends_later_lasts(text: str) -> None:
    moments = [(at_s, str(direction)) for at_s, direction in profile(text).schedule("up")]
    assert moments[-1] == (11, "delay 5 ms")
    assert {direction for _, direction in moments[:-1]} <= {"outage"}


def test_a_later_entry_ends_the_ramp_of_what_it_says() -> None:
    later = "{at: 1.2s, up: {delay: 5ms}}"
    text = f"{{delay: 50ms, timeline: [{{at: 1s, ramp: 400ms, delay: 100ms, loss: 4%}}, {later}]}}"
    steps = timeline(text)
    assert [(at_s, step.delay_s) for at_s, step in steps] == [(1.1, 0.0625), (1.2, 0.005), (1.3, 0.005), (1.4, 0.005)]
    assert [step.loss for _, step in steps] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert [step.delay_s for _, step in timeline(text, "down")] == pytest.approx([0.0625, 0.075, 0.0875, 0.1])


def test_a_ramp_that_ends_when_another_begins_has_reached_its_end() -> None:
    text = "{delay: 0, timeline: [{at: 1s, ramp: 200ms, delay: 10ms}, {at: 1.2s, ramp: 200ms, delay: 20ms}]}"
    assert [step.delay_s for _, step in timeline(text)] == pytest.approx([0.005, 0.01, 0.015, 0.02])


def test_a_link_may_begin_with_an_outage() -> None:
    link = profile("{delay: 5ms, outage: 1s}")
    assert (str(link.up), timeline("{delay: 5ms, outage: 1s}")) == ("outage", [(1, Direction(delay_s=0.005))])


def test_a_ramp_is_a_staircase() -> None:
    steps = timeline("{rate: 1mbit, delay: 0, timeline: [{at: 1s, ramp: 500ms, rate: 2mbit, delay: 10ms}]}")
    assert [at_s for at_s, _ in steps] == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5])
    assert [step.rate_bps for _, step in steps] == pytest.approx([1.2e6, 1.4e6, 1.6e6, 1.8e6, 2e6])
    assert [step.delay_s for _, step in steps] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])


def test_a_cycle_begins_anew_for_ever() -> None:
    found = timeline("{delay: 5ms, timeline: [{at: 2s, delay: 8ms}], cycle: 10s}")
    assert [(at_s, direction.delay_s) for at_s, direction in found[:4]] == [
        (2, 0.008),
        (10, 0.005),
        (12, 0.008),
        (20, 0.005),
    ]


def test_a_direction_without_changes_has_none_in_any_cycle() -> None:
    text = "{delay: 5ms, timeline: [{at: 2s, up: {delay: 8ms}}], cycle: 10s}"
    assert (len(timeline(text)), timeline(text, "down")) == (12, [])


def test_every_impairment_is_read_out() -> None:
    text = "{delay: 5ms, jitter: {size: 1ms, distribution: normal, keep_order: false}, duplicate: 1%, corrupt: 2%}"
    said = "delay 5 ms ± 1 ms normal in any order, duplicate 1 %, corrupt 2 %"
    assert str(profile(text)) == f"inline (each way: {said})"
    assert str(profile("{timeline: [{at: 1s, loss: 1%}], cycle: 9s}")) == (
        "inline (each way: delay 0 ms; 1 change every 9 s)"
    )


def test_a_trace_is_read_out_and_is_the_rate(tmp_path: Path) -> None:
    (tmp_path / "slow.trace").write_text("12\n")
    (tmp_path / "text.trace").write_text("twelve\n")
    assert "rate by trace, 1 Mbit/s on average, with a queue of 10" in str(profile(f"trace: {tmp_path}/slow.trace"))
    assert "trace: not together with rate" in refusal(f"{{rate: 1mbit, trace: {tmp_path}/slow.trace}}")
    assert "one whole number of milliseconds per line" in refusal(f"trace: {tmp_path}/text.trace")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("loss: {gilbert_elliott: {good: 0, bad: 1s}}", "good and bad must be more than 0"),
        ("timeline: [{at: 1s, ramp: 1s, loss: {gilbert_elliott: {p: 1%, r: 25%}}}]", "bursts come at once: no ramp"),
    ],
)
def test_more_refusals(text: str, sentence: str) -> None:
    assert sentence in refusal(text)

"""What is drawn in figures, read off their axes; the runs are made by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from test_stats import message, write_run

from loadtests.analysis import linkplots, pictures, plots, sweeps
from loadtests.analysis.pictures import Gallery, Picture
from loadtests.analysis.read import Run
from loadtests.samples import TABLES

Drawn = Callable[[Callable[[Run], Gallery], Run], tuple[Gallery, list[list[Axes]]]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Draws a figure of a run: the gallery, and the axes of each of its pictures."""
    figures: list[Figure] = []

    def kept(figure: Figure, alt: str) -> Picture:
        figures.append(figure)
        return pictures.finished(figure, alt)

    for module in (plots, linkplots, sweeps):
        monkeypatch.setattr(module, "finished", kept)

    def draw(figure_of: Callable[[Run], Gallery], run: Run) -> tuple[Gallery, list[list[Axes]]]:
        figures.clear()
        gallery = figure_of(run)
        return gallery, [figure.axes for figure in figures]

    return draw


def points(axes: Axes, curve: int = 0) -> list[tuple[float, float]]:
    x, y = np.asarray(axes.lines[curve].get_xydata()).T
    return [*zip(x.tolist(), y.tolist(), strict=True)]


def delivery(id_: int, delay_ms: float | None, *, disturbed: int = 0) -> dict[str, object]:
    return {"trial": 1, "receiver": 2, "sender": 1, "id": id_, "one_way_delay_ms": delay_ms, "disturbed": disturbed}


def test_a_delay_that_is_unknown_is_none_that_never_ended(tmp_path: Path, drawn: Drawn) -> None:
    """Between different machines nobody knows it; warm-up and what was disturbed are left out, as everywhere."""
    messages = [message(1, 9.0, warmup=int(n == 0)) | {"id": n} for n in range(10)]
    deliveries = [delivery(1, 4.0), delivery(2, 5.0), *(delivery(n, None) for n in (3, 4, 5))]
    deliveries += [delivery(6, 700.0, disturbed=1), delivery(0, 900.0)]
    run = write_run(tmp_path, {"messages": messages, "deliveries": deliveries}, [{"link": "lan"}])
    gallery, [[axes]] = drawn(plots.one_way_delay, run)
    assert points(axes)[-2:] == [(4.0, 0.5), (5.0, 1.0)]
    assert "Not drawn: 3 of 5, whose sender and receiver are on different machines." in gallery.note


def test_a_message_that_was_lost_keeps_the_curve_below_1(tmp_path: Path, drawn: Drawn) -> None:
    messages = [message(1, 4.0), message(1, 5.0), *[message(1, None, outcome="lost")] * 2]
    _, [[axes]] = drawn(plots.distribution, write_run(tmp_path, {"messages": messages}, [{"link": "lan"}]))
    assert points(axes)[-1] == (5.0, 0.5)


def test_a_receiver_whose_jitter_is_unknown_is_left_out(tmp_path: Path, drawn: Drawn) -> None:
    deliveries = [delivery(n, ms) for n, ms in ((1, 4.0), (2, 20.0))] + [delivery(1, 4.0) | {"receiver": 3}]
    rows = {"messages": [message(1, 9.0)], "deliveries": deliveries}
    _, [[axes]] = drawn(plots.jitter, write_run(tmp_path, rows, [{"link": "lan"}]))
    assert points(axes)[-1] == (1.0, 1.0)


def test_a_share_stays_until_the_next_value_changes_it(tmp_path: Path, drawn: Drawn) -> None:
    """Of four values half are below all that lies between the second and the third: no slant leads through there."""
    messages = [message(1, ms) for ms in (1.0, 2.0, 50.0, 60.0)]
    _, [[axes]] = drawn(plots.distribution, write_run(tmp_path, {"messages": messages}, [{"link": "lan"}]))
    assert points(axes) == [(1.0, 0.0), (1.0, 0.25), (2.0, 0.5), (50.0, 0.75), (60.0, 1.0)]
    assert axes.lines[0].get_drawstyle() == "steps-post"


@pytest.mark.parametrize("gains", [9, 10])
def test_a_gain_of_too_few_messages_is_no_empty_picture(tmp_path: Path, drawn: Drawn, gains: int) -> None:
    paths = ["secondary"] * gains + ["primary"] * 20
    messages = [message(1, 9.0) | {"path": path, "second_copy_lag_ms": 1.0 + n} for n, path in enumerate(paths)]
    run = write_run(tmp_path, {"messages": messages}, [{"connections": "redundant"}])
    gallery, figures = drawn(plots.second_copy, run)
    assert len(figures) == 1 + (gains == 10)
    assert gallery.note.endswith("a curve takes 10 of them" + ("." if gains == 10 else ", and no variant has so many."))


def test_answers_are_counted_where_they_came_in_every_trial(tmp_path: Path, drawn: Drawn) -> None:
    """Trial 1 answers at once, trial 2 all at the end; who has nothing in a second counts as none, not as left out."""
    due_s = {1: [0.5, 1.5, 1.6, 2.5], 2: [1.5, 1.6, 1.7, 1.8]}
    came_s = {1: [0.6, 1.6, 1.7, 2.6], 2: [3.1, 3.2, 3.3, 3.4]}
    messages = [
        message(trial, 1000 * (came - due), warmup=int(due < 1)) | {"intended_s": due, "echoed_s": came}
        for trial in (1, 2)
        for due, came in zip(due_s[trial], came_s[trial], strict=True)
    ]
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}] * 2, repetitions=[1, 2])
    _, [[_, rate, *_]] = drawn(plots.seconds, run)
    assert points(rate) == [(0.5, 0.5), (1.5, 1.0), (2.5, 0.5), (3.5, 2.0)]


@pytest.mark.parametrize("figure_of", [plots.seconds, linkplots.queue])
def test_a_second_that_lost_messages_has_a_cross_instead_of_a_finite_tail(
    tmp_path: Path, drawn: Drawn, figure_of: Callable[[Run], Gallery]
) -> None:
    messages = [message(1, 10.0) | {"intended_s": at} for at in (1.1, 1.2, 1.3, 2.1, 2.2, 2.3)]
    messages += [message(1, None, outcome="lost") | {"intended_s": 2.4}]
    messages += [message(1, None, outcome="refused") | {"intended_s": 1.4}]
    _, [[times, *_]] = drawn(figure_of, write_run(tmp_path, {"messages": messages}, [{"link": "lan"}]))
    median, crosses_of_median, tail, crosses_of_tail = (points(times, curve) for curve in range(4))
    assert (median, crosses_of_median) == ([(1.5, 10.0), (2.5, 10.0)], [])
    assert (tail[0], np.isnan(tail[1][1]), crosses_of_tail) == ((1.5, 10.0), True, [(2.5, 1.0)])


def test_retransmissions_of_both_ends_are_drawn(tmp_path: Path, drawn: Drawn) -> None:
    """A connection that is new on its path counts from 0 again; the server's old end may be sampled beside it."""
    samples = {
        "client": [(0.5, 100, 2), (1.5, 200, 3), (2.5, 300, 3), (3.5, 50, 1)],
        "server": [(0.5, 100, 0), (1.5, 200, 10), (2.4, 200, 40), (2.5, 50, 1), (3.4, 200, 42), (3.5, 60, 1)],
    }
    tcp = [
        {"trial": 1, "side": side, "user": 1, "path": "primary", "time_s": time_s}
        | {"sent_bytes": sent, "retransmissions": count}
        for side, of in samples.items()
        for time_s, sent, count in of
    ]
    run = write_run(tmp_path, {"messages": [message(1, 9.0) | {"intended_s": 1.0}], "tcp": tcp}, [{"link": "lan"}])
    _, [[_, _, retransmitted, *_]] = drawn(plots.seconds, run)
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in retransmitted.containers}
    assert heights == {"client's end": [2, 1, 0, 1], "server's end": [0, 10, 31, 2]}


def test_a_cell_of_a_map_without_a_number_says_why(tmp_path: Path, drawn: Drawn) -> None:
    variants = [{"link.loss": loss, "link.rtt": rtt} for loss in ("0%", "2%") for rtt in ("10ms", "50ms")]
    answered = [message(trial, 10.0 * trial) | {"intended_s": at / 10} for trial in (1, 2, 3, 4) for at in range(30)]
    lost = [row | {"response_time_ms": None, "outcome": "lost"} for row in answered if row["trial"] == 3]
    few = [row for row in answered if row["trial"] == 4][:5]
    messages = [row for row in answered if row["trial"] in (1, 2)] + lost + few
    _, [[axes, _]] = drawn(sweeps.heat_map, write_run(tmp_path, {"messages": messages}, variants))
    words = {text.get_position(): text.get_text() for text in axes.texts}
    assert words == {(0.5, 0.5): "10", (1.5, 0.5): "20", (0.5, 1.5): "lost", (1.5, 1.5): "too few"}
    assert len({patch.get_facecolor() for patch in axes.patches}) == 2, "each in a colour of its own"


@pytest.mark.parametrize("losses", [["0%", "1%", "2%"], ["0.1%", "1%", "10%"]])
def test_no_bar_of_a_sweep_hides_another(losses: list[str], tmp_path: Path, drawn: Drawn) -> None:
    """Each stands near its value, on an axis in logarithms too, and beside those of the other curves."""
    modes = ("single", "standby", "redundant")
    variants = [{"link.loss": loss, "connections": mode} for loss in losses for mode in modes]
    messages = [message(trial, 9.0) | {"intended_s": at / 10} for trial in range(1, 10) for at in range(30)]
    _, [[axes]] = drawn(sweeps.sweep, write_run(tmp_path, {"messages": messages}, variants))
    assert axes.get_xscale() == ("log" if "10%" in losses else "linear")
    places = [axes.transData.transform(np.asarray(bars.lines[0].get_xydata()))[:, 0] for bars in axes.containers]
    values = axes.transData.transform([(float(loss.rstrip("%")), 9.0) for loss in losses])[:, 0]
    near, width = np.stack(places) - values, values[-1] - values[0]
    assert np.all(np.abs(near) < width / 40)
    assert np.all(np.diff(near, axis=0) > width / 200)


def test_the_steps_of_a_ramp_are_drawn_as_one(tmp_path: Path, drawn: Drawn) -> None:
    messages = [message(1, 9.0) | {"intended_s": at} for at in (0.0, 15.0)]
    run = write_run(tmp_path, {"messages": messages}, [{"link": "train"}])
    ramp_s = [4 + step / 10 for step in range(1, 31)]
    rows = [{"trial": 1, "when": "change", "time_s": at + 0.0002} for at in (*ramp_s, 8.0, 8.3, 11.0)]
    pd.DataFrame(rows, columns=list(TABLES["link"])).to_csv(run.path / "link.csv", index=False)
    _, [[axes]] = drawn(plots.over_time, run)
    lines = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--")
    assert lines == [4.1, 7.0, 8.0, 8.3, 11.0]
    assert [
        patch.get_extents().transformed(axes.transData.inverted()).intervalx.tolist() for patch in axes.patches
    ] == [pytest.approx([4.1, 7.0])]


def test_two_clouds_are_told_apart_without_colour(tmp_path: Path, drawn: Drawn) -> None:
    variants = [{"link": "lan", "connections": mode} for mode in ("single", "redundant")]
    messages = [message(trial, 9.0) | {"intended_s": at} for trial in (1, 2) for at in (0.0, 1.0)]
    _, [[axes]] = drawn(plots.over_time, write_run(tmp_path, {"messages": messages}, variants))
    clouds = [cloud for cloud in axes.collections if len(cloud.get_offsets())]
    assert [len(cloud.get_facecolor()) for cloud in clouds] == [1, 0], "filled, hollow"


def test_what_is_varied_may_be_a_whole_link() -> None:
    """Titles, legends and names below an axis stay inside the picture; constrained_layout warns if nothing is left."""
    link = "{rtt: 20ms, up: {rate: 300kbit}, down: {rate: 5mbit, loss: 2%}}"
    figure, [axes] = pictures.panel()
    for number in range(8):
        axes.plot([0, 1], [0, number], label=f"{link} {number}")
    axes.set_title(link)
    pictures.finished(figure, "long names")
    figure.draw_without_rendering()
    [legend] = figure.legends
    for text in (axes.title, legend):
        extent = text.get_window_extent()
        assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1
    assert axes.get_window_extent().height > figure.dpi, "more than an inch"

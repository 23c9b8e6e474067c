"""Our tabs in Locust's web UI: `Chat` has the figures of the load, `Link` what the harness knows of the link.

Behind a link of ours the load is in a network namespace that no browser reaches. There it is handed a socket that
already listens, made outside: a socket stays in the namespace in which it was made.
"""

import json
from pathlib import Path
from typing import Any

import gevent.socket
from flask import Response, make_response, request
from gevent.pywsgi import WSGIServer
from locust.env import Environment
from locust.web import WebUI

from loadtests.load.live import COLUMNS, ENDED, FACTS, LINK_COLUMNS, LiveFigures, Row

_CHAT, _LINK = "chat", "link"


class ScenarioUI(WebUI):
    """Locust's page of a test that a scenario begins and ends: there is nothing to start, stop or reset."""

    def update_template_args(self) -> None:
        """Always running: the page would otherwise stop asking between two trials."""
        super().update_template_args()
        self.template_args |= {"state": "running"}


def serve(environment: Environment, descriptor: int) -> None:
    """Serve the page of a test without a head on a socket that listens already."""
    ui = ScenarioUI(environment, "", 0, delayed_start=True)
    assert ui.app

    @ui.app.before_request
    def only_look() -> Response | None:
        return None if request.method == "GET" else make_response("The scenario starts and ends this test.", 403)

    listener = gevent.socket.socket(fileno=descriptor)
    WSGIServer(listener, ui.app, log=None, error_log=None).start()


def add_tabs(ui: WebUI, figures: LiveFigures, folder: Path | None) -> None:
    """Add them; `folder`: where the harness says what it knows, None if there is no harness."""
    chat = {"key": _CHAT, "structure": [{"key": key, "title": title} for key, title in COLUMNS.items()]}
    link = {"key": _LINK, "structure": [{"key": key, "title": key} for key in LINK_COLUMNS]}
    tabs = [(chat, "Chat"), (link, "Link")] if folder else [(chat, "Chat")]
    ui.template_args |= {
        "extended_tabs": [{"key": table["key"], "title": title} for table, title in tabs],
        "extended_tables": [table for table, _ in tabs],
    }
    assert ui.app

    @ui.app.after_request
    def extend(response: Response) -> Response:
        if not request.path.endswith("/stats/requests") or response.status_code != 200:
            return response
        facts = _facts(folder)
        rows = [*_ended(folder), *figures.rows(facts.get("trial", ""))]
        answer: dict[str, Any] = response.get_json()
        if isinstance(ui, ScenarioUI):
            answer["state"] = "running"
        answer["extended_stats"] = [{"key": _CHAT, "data": rows}, {"key": _LINK, "data": facts.get("link", [])}]
        response.set_data(json.dumps(answer))
        return response


def note_end(figures: LiveFigures, folder: Path) -> None:
    """The trial has ended: leave its row for the pages of those that follow."""
    row = figures.rows()[1] | {"name": str(_facts(folder).get("trial", ""))}
    with (folder / ENDED).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _facts(folder: Path | None) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text()) if folder else {}
    except FileNotFoundError:
        return {}
    return facts


def _ended(folder: Path | None) -> list[Row]:
    try:
        return [json.loads(line) for line in (folder / ENDED).read_text().splitlines()] if folder else []
    except FileNotFoundError:
        return []

"""A real server, connections that are reset all the time, whole paths that are cut: nothing lost, nothing twice."""

import pytest
from chaos import Chaos, Plan
from chat_helpers import server_process

from chat.client.client import Mode

pytestmark = pytest.mark.realtime("chat")


@pytest.mark.parametrize("mode", ["single", "standby", "redundant"])
def test_chaos(mode: Mode) -> None:
    plan = Plan(mode, clients=10, rate=200, duration_s=2, reset_every_s=0.05, outage_every_s=1.5, outage_s=0.4)
    with server_process() as server:
        verdict = Chaos(plan, server.address, server.address).run()
    assert verdict.good, verdict
    assert verdict.sent > 100
    assert verdict.resets > 10
    assert verdict.outages
    if mode == "single":
        assert verdict.reconnections

"""The stages of a scenario as a Locust load shape."""

from locust import LoadTestShape

from loadtests.scenario.scenario import Stage


class StagesShape(LoadTestShape):
    """Holds each stage's number of users for its duration, one stage after the other, then stops the test."""

    def __init__(self, stages: list[Stage]) -> None:
        super().__init__()
        self._stages = stages
        #: Whether to stop early.
        self.is_over = False

    def reset_time(self) -> None:
        super().reset_time()
        self.is_over = False

    def tick(self) -> tuple[int, float] | None:
        elapsed_s = self.get_run_time()
        if self.is_over:
            return None
        for stage in self._stages:
            if elapsed_s < stage.duration:
                return stage.users, stage.spawn_rate
            elapsed_s -= stage.duration
        return None

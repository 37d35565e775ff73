"""When a component that died is started again."""

from __future__ import annotations

from k2.local.restarts import RestartHistory, RestartPolicy, after_death

POLICY = RestartPolicy(pause_seconds=0.5, pause_seconds_max=4.0, calm_seconds=60.0, failing_after_deaths=3)


def _deaths(count: int, *, lived_seconds: float = 1.0):
    history, restarts = RestartHistory(), []
    for _ in range(count):
        restart = after_death(history, POLICY, lived_seconds=lived_seconds)
        history = restart.history
        restarts.append(restart)
    return restarts


def test_the_first_restart_is_at_once_then_the_pause_doubles_up_to_its_limit():
    restarts = _deaths(7)

    assert [restart.pause_seconds for restart in restarts] == [0.0, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_component_that_keeps_dying_is_failing():
    restarts = _deaths(4)

    assert [restart.failing for restart in restarts] == [False, False, True, True]


def test_a_calm_life_makes_the_next_death_the_first_again():
    history = _deaths(5)[-1].history

    restart = after_death(history, POLICY, lived_seconds=60.0)

    assert (restart.pause_seconds, restart.failing) == (0.0, False)
    assert restart.history.restarts == 6


def test_a_life_just_short_of_calm_forgets_nothing():
    history = _deaths(2)[-1].history

    restart = after_death(history, POLICY, lived_seconds=59.9)

    assert restart.pause_seconds == 1.0


def test_thousands_of_deaths_do_not_overflow_the_pause():
    assert _deaths(2000)[-1].pause_seconds == 4.0

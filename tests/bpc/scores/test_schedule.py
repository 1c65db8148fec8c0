import pytest

from bpc.scores import Schedule


def test_threshold_and_lambda_follow_the_cubic_of_the_method() -> None:
    schedule = Schedule(initial=0.0, final=0.1, warmup=0.2, cooldown=0.3)
    # c = 1 − (p − 0.2)/0.5; τ = 0.1·(1 − c³)
    for progress, c in [(0.0, 1.0), (0.2, 1.0), (0.45, 0.5), (0.7, 0.0), (1.0, 0.0)]:
        assert schedule.threshold(progress) == pytest.approx(0.1 * (1 - c**3))
        assert schedule.ramp(progress) == pytest.approx(1 - c**3)


def test_paper_schedule_in_steps_is_the_same_formula() -> None:
    steps, warm, wi, wf = 1000, 50, 1, 10
    schedule = Schedule(0.0, 0.1, warmup=wi * warm / steps, cooldown=wf * warm / steps)
    for t in range(0, steps + 1, 50):
        c = min(1.0, max(0.0, 1 - (t - wi * warm) / (steps - (wi + wf) * warm)))
        assert schedule.threshold(t / steps) == pytest.approx(0.1 + (0.0 - 0.1) * c**3)


def test_kept_fraction_falls_from_one_and_lambda_still_grows() -> None:
    schedule = Schedule(initial=1.0, final=0.25, warmup=0.0, cooldown=0.0)
    assert schedule.threshold(0.0) == 1.0
    assert schedule.threshold(1.0) == 0.25
    assert (schedule.ramp(0.0), schedule.ramp(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize(("warmup", "cooldown"), [(-0.1, 0.2), (0.5, 0.5), (0.1, -0.1)])
def test_shares_that_leave_no_time_are_refused(warmup: float, cooldown: float) -> None:
    with pytest.raises(ValueError, match="shares of the run"):
        Schedule(warmup=warmup, cooldown=cooldown)

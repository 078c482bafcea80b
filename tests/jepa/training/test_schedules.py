"""Learning-rate schedules: functions of the step alone, in the shapes that V-JEPA published."""

import pytest

from jepa.config import UserError, from_dict
from jepa.training.config import PretrainConfig
from jepa.training.optim import schedule_of


def rates(steps: int, lr: float, **schedule: object) -> list[float]:
    """The learning rate of every step, and of the first that is not taken."""
    described = {
        "run": "unused",
        "data": {"shards": "unused", "clip_frames": 4, "batch_size": 2},
        "encoder": {"kind": "conv"},
        "method": {"kind": "lewm"},
        "optimizer": {"lr": lr},
        "schedule": schedule,
        "trainer": {"steps": steps},
    }
    factor = schedule_of(from_dict(described, PretrainConfig))
    return [lr * factor(step) for step in range(steps + 1)]


@pytest.mark.parametrize("kind", ["cosine", "flat", "wsd"])
def test_the_warm_up_climbs_in_equal_steps_from_the_start_rate(kind):
    lr = rates(40, 5.25e-4, kind=kind, warmup_steps=10, start_lr=1e-4)
    step = (5.25e-4 - 1e-4) / 10
    assert lr[:10] == pytest.approx([1e-4 + step * (i + 1) for i in range(10)])


def test_the_cosine_ends_at_its_final_rate_and_is_half_way_in_the_middle():
    lr = rates(110, 1.0, kind="cosine", warmup_steps=10, final_lr=0.2)
    assert lr[10] == 1.0 and lr[60] == pytest.approx(0.6) and lr[110] == pytest.approx(0.2)


def test_warm_up_stable_decay_is_flat_until_its_tail_and_then_a_line():
    lr = rates(100, 2.0, kind="wsd", warmup_steps=10, decay_steps=20, final_lr=1.0)
    assert lr[9:81] == [2.0] * 72
    assert lr[80:101] == pytest.approx([2.0 - i / 20 for i in range(21)])


def test_without_a_tail_warm_up_stable_decay_is_flat():
    assert rates(30, 1.0, kind="wsd", warmup_steps=5) == rates(30, 1.0, kind="flat", warmup_steps=5)


def test_the_linear_cooldown_is_a_line_over_the_whole_run():
    assert rates(50, 1.0, kind="linear", final_lr=0.5) == pytest.approx([1 - i / 100 for i in range(51)])


@pytest.mark.parametrize("kind", ["cosine", "flat"])
def test_a_warm_up_longer_than_the_run_is_a_warning(kind, caplog):
    assert rates(10, 1.0, kind=kind, warmup_steps=10)[9] == 1.0 and not caplog.messages
    assert rates(10, 1.0, kind=kind, warmup_steps=20)[9] == 0.5
    assert "schedule.warmup_steps is 20 and the run has 10 steps" in caplog.messages[0]


def test_a_schedule_longer_than_the_run_says_what_to_change():
    with pytest.raises(UserError, match=r"10 \+ 20 steps, the run has 25.*decay_steps"):
        rates(25, 1.0, kind="wsd", warmup_steps=10, decay_steps=20)

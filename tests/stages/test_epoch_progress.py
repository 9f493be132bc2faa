"""What is said while a training goes on."""

import pytest

from stages.epoch_progress import Pace, duration


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def train(pace, clock, epochs, steps, first_step, step, validation, first_epoch=0):
    """What Keras calls, with the seconds that each part takes."""
    pace.set_params({"epochs": epochs, "steps": steps, "verbose": 0})
    pace.on_train_begin()
    for epoch in range(first_epoch, epochs):
        pace.on_epoch_begin(epoch)
        for batch in range(steps):
            clock.now += first_step if (epoch, batch) == (first_epoch, 0) else step
            pace.on_train_batch_end(batch)
        clock.now += validation
        pace.on_epoch_end(epoch, {"nll": 0.5, "val_nll": 0.25})
    pace.on_train_end()


def test_each_epoch_is_a_line_with_rate_and_time_left(capsys):
    clock = Clock()
    train(Pace("tier-1", clock), clock, epochs=3, steps=4, first_step=20, step=2, validation=4)
    assert capsys.readouterr().out.splitlines() == [
        "tier-1: epoch 1 of 3: loss 0.5000, validation 0.2500, 2 s per step, 24 s left",
        "tier-1: epoch 2 of 3: loss 0.5000, validation 0.2500, 2 s per step, 12 s left",
        "tier-1: epoch 3 of 3: loss 0.5000, validation 0.2500, 2 s per step",
    ]


def test_long_epochs_are_not_silent(capsys):
    clock = Clock()
    train(Pace("tier-2", clock), clock, epochs=5, steps=10, first_step=30, step=20, validation=0, first_epoch=4)
    assert capsys.readouterr().out.splitlines() == [
        "tier-2: epoch 5 of 5: step 3 of 10, 20 s per step, 2 min left",
        "tier-2: epoch 5 of 5: step 7 of 10, 20 s per step, 60 s left",
        "tier-2: epoch 5 of 5: loss 0.5000, validation 0.2500, 20 s per step",
    ]


def test_epochs_of_one_step(capsys):
    clock = Clock()
    train(Pace("tier-1", clock), clock, epochs=2, steps=1, first_step=3, step=2, validation=1)
    assert capsys.readouterr().out.splitlines()[0].endswith("3 s per step, 4 s left")


def test_a_terminal_gets_a_bar_over_all_that_is_left(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    clock = Clock()
    train(Pace("tier-1", clock), clock, epochs=3, steps=4, first_step=20, step=2, validation=4, first_epoch=1)
    captured = capsys.readouterr()
    assert "8/8" in captured.err
    assert captured.out.count("epoch") == 2


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2.0 h")])
def test_duration(seconds, text):
    assert duration(seconds) == text

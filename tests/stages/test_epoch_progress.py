"""What a training prints while it runs."""

import pytest

from stages.epoch_progress import EpochProgress


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("stages.epoch_progress.monotonic", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)  # no thread that looks at the real clock
    return clock


def train(name, clock, epochs, steps, first_step, step, validation, first_epoch=0, **options):
    """Call what Keras calls, with the seconds that each part takes."""
    shown = EpochProgress(name, **options)
    shown.set_params({"epochs": epochs, "steps": steps, "verbose": 0})
    shown.on_train_begin()
    for epoch in range(first_epoch, epochs):
        shown.on_epoch_begin(epoch)
        for batch in range(steps):
            clock.now += first_step if (epoch, batch) == (first_epoch, 0) else step
            shown.on_train_batch_end(batch)
        clock.now += validation
        shown.on_epoch_end(epoch, {"nll": 0.5, "val_nll": 0.25})
    shown.on_train_end()


def test_each_epoch_is_a_line_with_rate_and_time_left(capsys, clock):
    train("tier-1", clock, epochs=3, steps=4, first_step=20, step=2, validation=4)
    assert capsys.readouterr().out.splitlines() == [
        "tier-1: epoch 1 of 3: loss 0.5000, validation 0.2500, 2 s per step, 00:24 left",
        "tier-1: epoch 2 of 3: loss 0.5000, validation 0.2500, 2 s per step, 00:12 left",
        "tier-1: epoch 3 of 3: loss 0.5000, validation 0.2500, 2 s per step, 00:00 left",
    ]


def test_a_long_epoch_has_a_line_every_minute_with_the_time_left(capsys, clock):
    train("tier-2", clock, epochs=6, steps=10, first_step=500, step=20, validation=0, first_epoch=4)
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == (
        "tier-2: epoch 6 of 6: loss 0.5000, validation 0.2500, 20 s per step, 00:00 left"
    )
    # The first comes when the first step has been compiled, which is left out of the time per step.
    done = [1, 4, 7, 10, 13, 16, 19, 20]
    lines = [line for line in captured.err.splitlines() if line]
    assert [line.split(",")[0] for line in lines] == [f"tier-2: {count} of 20 steps" for count in done]
    assert lines[1].endswith(" 01:00<05:20")
    assert lines[-1].endswith(" 06:20<00:00")


def test_epochs_of_one_step(capsys, clock):
    train("tier-1", clock, epochs=2, steps=1, first_step=3, step=2, validation=1)
    assert capsys.readouterr().out.splitlines()[0].endswith("3 s per step, 00:04 left")


def test_the_time_left_is_an_upper_bound_where_training_may_stop_early(capsys, clock):
    train("tier-1", clock, epochs=3, steps=4, first_step=20, step=2, validation=4, may_stop_early=True)
    assert capsys.readouterr().out.splitlines()[0].endswith("2 s per step, at most 00:24 left")


def test_a_terminal_gets_a_bar_over_all_that_is_left(capsys, clock, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    train("tier-1", clock, epochs=3, steps=4, first_step=20, step=2, validation=4, first_epoch=1)
    captured = capsys.readouterr()
    assert "8/8" in captured.err
    assert captured.out.count("epoch") == 2

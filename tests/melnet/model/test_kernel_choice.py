"""The choice between the kernels, on an imitated accelerator: this machine's CPU."""

import warnings

import pytest

from melnet import backend
from melnet.model import kernel_choice
from melnet.model.gru import GRU
from melnet.model.lstm import LSTM


@pytest.fixture(autouse=True)
def nothing_chosen():
    kernel_choice.accelerated.cache_clear()
    yield
    kernel_choice.accelerated.cache_clear()


@pytest.fixture
def with_accelerator(monkeypatch):
    monkeypatch.setattr(backend, "has_accelerator", lambda: True)


def test_without_an_accelerator_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(backend, "has_accelerator", lambda: False)
    monkeypatch.setattr(kernel_choice, "difference", lambda cell: pytest.fail("compared"))
    assert not kernel_choice.accelerated(LSTM)


@pytest.mark.parametrize("cell", [LSTM, GRU], ids=["lstm", "gru"])
def test_kernels_that_agree_are_used_on_an_accelerator(cell, with_accelerator, monkeypatch):
    found = kernel_choice.difference(cell)
    assert 0 < found < 1e-5
    monkeypatch.setattr(kernel_choice, "difference", lambda cell: found)
    with warnings.catch_warnings(action="error"):
        assert kernel_choice.accelerated(cell)


@pytest.mark.parametrize("wrong", ["recurrent", "initial"])
def test_a_kernel_that_computes_something_else_is_not_used(with_accelerator, monkeypatch, wrong):
    """Both errors are in gradients alone; of the initial state's only the part that comes through the cell is wrong."""
    backward = kernel_choice.run_together.__globals__["_backward"]

    def broken(*arguments):
        scaled = {"recurrent": lambda d: d * 1.1, "initial": lambda d: (d[0], d[1] * 1.1)}[wrong]
        return tuple(d._replace(**{wrong: scaled(getattr(d, wrong))}) for d in backward(*arguments))

    monkeypatch.setitem(kernel_choice.run_together.__globals__, "_backward", broken)
    with pytest.warns(UserWarning, match=r"^LSTM: on this accelerator, .* differ by 0\.\d+ of .* more than 0\.02; the"):
        assert not kernel_choice.accelerated(LSTM)


def test_values_that_are_not_finite_are_never_right(with_accelerator, monkeypatch):
    monkeypatch.setattr(kernel_choice, "run_together", lambda jobs: [x[..., :1] * float("nan") for _, x in jobs])
    with pytest.warns(UserWarning, match="differ by inf"):
        assert not kernel_choice.accelerated(GRU)

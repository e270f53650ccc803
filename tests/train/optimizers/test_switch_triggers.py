"""AtEpoch and OnPlateau; test_swats.py tests SWATS."""

from __future__ import annotations

import pytest

from kpipe.errors import TrainingError
from kpipe.train import SWATS, AtEpoch, OnPlateau


def test_at_epoch_switches_from_that_epoch_on() -> None:
    trigger = AtEpoch(2)
    assert [trigger.should_switch(trigger.initial_state(), epoch) for epoch in range(4)] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("losses", "due"),
    [
        ([3, 2, 1], [False, False, False]),
        ([3, 3, 3], [False, False, True]),
        ([3, 2, 2, 1, 1, 1], [False, False, False, False, False, True]),
        ([3, 2.95, 2.92], [False, False, True]),  # less than min_delta each
        ([3, 2.95, 2.8], [False, False, False]),  # together more
    ],
)
def test_a_plateau_is_patience_epochs_without_improvement(losses, due) -> None:
    trigger = OnPlateau("val_loss", patience=2, min_delta=0.1)
    state, got = trigger.initial_state(), []
    for epoch, loss in enumerate(losses):
        state = trigger.update(state, {"val_loss": loss})
        got.append(trigger.should_switch(state, epoch + 1))
    assert got == due


def test_larger_accuracies_are_better() -> None:
    trigger = OnPlateau("val_accuracy", patience=1)
    state = trigger.update(trigger.initial_state(), {"val_accuracy": 0.5})
    assert not trigger.should_switch(trigger.update(state, {"val_accuracy": 0.6}), 2)
    assert trigger.should_switch(trigger.update(state, {"val_accuracy": 0.4}), 2)


@pytest.mark.parametrize(
    ("monitor", "mode", "smaller"),
    [
        ("val_loss", "auto", True),
        ("val_mae", "auto", True),
        ("rmse", "auto", True),
        ("mean_absolute_error", "auto", True),
        ("kl_divergence", "auto", True),
        ("val_auc", "auto", False),
        ("val_auc", "min", True),
        ("val_loss", "max", False),
    ],
)
def test_smaller_losses_and_errors_are_better(monitor: str, mode: str, smaller: bool) -> None:
    trigger = OnPlateau(monitor, patience=1, mode=mode)
    state = trigger.update(trigger.initial_state(), {monitor: 0.5})
    assert trigger.should_switch(trigger.update(state, {monitor: 0.4}), 2) != smaller
    assert trigger.should_switch(trigger.update(state, {monitor: 0.6}), 2) == smaller


def test_nan_is_never_the_best() -> None:
    trigger = OnPlateau("loss", patience=2)
    state = trigger.update(trigger.initial_state(), {"loss": float("nan")})
    state = trigger.update(state, {"loss": 3.0})
    assert state == {"best": 3.0, "waited": 0}
    assert trigger.update(state, {"loss": float("nan")}) == {"best": 3.0, "waited": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: AtEpoch(-1),
        lambda: OnPlateau(patience=0),
        lambda: OnPlateau(min_delta=-1.0),
        lambda: OnPlateau(min_delta=float("nan")),
        lambda: OnPlateau(mode="least"),
        lambda: SWATS(0.0),
    ],
)
def test_an_invalid_trigger_is_rejected(make) -> None:
    with pytest.raises(TrainingError):
        make()

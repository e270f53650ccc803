"""The moments by themselves; SWATS has a file of its own."""

from __future__ import annotations

import pytest

from kpipe.errors import TrainingError
from kpipe.train import SWATS, AtEpoch, OnPlateau, SwitchOptimizer, TrainingConfig


def test_an_epoch_is_due_from_itself_on() -> None:
    moment = AtEpoch(2)
    assert [moment.due(moment.initial(), epoch) for epoch in range(4)] == [False, False, True, True]


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
    moment = OnPlateau("val_loss", patience=2, min_delta=0.1)
    state, got = moment.initial(), []
    for epoch, loss in enumerate(losses):
        state = moment.seen(state, {"val_loss": loss})
        got.append(moment.due(state, epoch + 1))
    assert got == due


def test_an_accuracy_improves_upward() -> None:
    moment = OnPlateau("val_accuracy", patience=1)
    state = moment.seen(moment.initial(), {"val_accuracy": 0.5})
    assert not moment.due(moment.seen(state, {"val_accuracy": 0.6}), 2)
    assert moment.due(moment.seen(state, {"val_accuracy": 0.4}), 2)


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
def test_better_is_smaller_for_losses_and_errors(monitor: str, mode: str, smaller: bool) -> None:
    moment = OnPlateau(monitor, patience=1, mode=mode)
    state = moment.seen(moment.initial(), {monitor: 0.5})
    assert moment.due(moment.seen(state, {monitor: 0.4}), 2) != smaller
    assert moment.due(moment.seen(state, {monitor: 0.6}), 2) == smaller


def test_no_number_is_never_the_best() -> None:
    moment = OnPlateau("loss", patience=2)
    state = moment.seen(moment.initial(), {"loss": float("nan")})
    state = moment.seen(state, {"loss": 3.0})
    assert state == {"best": 3.0, "waited": 0}
    assert moment.seen(state, {"loss": float("nan")}) == {"best": 3.0, "waited": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: AtEpoch(-1),
        lambda: AtEpoch("3"),
        lambda: AtEpoch(2.5),
        lambda: OnPlateau(patience=0),
        lambda: OnPlateau(patience="2"),
        lambda: OnPlateau(min_delta=-1.0),
        lambda: OnPlateau(min_delta=float("nan")),
        lambda: OnPlateau(mode="least"),
        lambda: SWATS(0.0),
        lambda: SWATS("1e-5"),
    ],
)
def test_an_impossible_moment_is_refused(make) -> None:
    with pytest.raises(TrainingError):
        make()


@pytest.mark.parametrize("when", [2, "plateau", AtEpoch, None])
def test_what_is_no_moment_is_refused_with_what_is(when) -> None:
    with pytest.raises(TrainingError, match=r"AtEpoch\(n\), OnPlateau"):
        SwitchOptimizer("sgd", when)
    if when is not None:
        with pytest.raises(TrainingError, match=r"AtEpoch\(n\), OnPlateau"):
            TrainingConfig(3, switch_to="sgd", switch_when=when)

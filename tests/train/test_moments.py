"""The moments by themselves; SWATS has a file of its own."""

from __future__ import annotations

import pytest

from kpipe.errors import TrainingError
from kpipe.train import AtEpoch, FitPlan, OnPlateau, SwitchOptimizer


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
    "make", [lambda: AtEpoch(-1), lambda: OnPlateau(patience=0), lambda: OnPlateau(min_delta=-1.0)]
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
            FitPlan(3, switch_to="sgd", switch_when=when)

"""One optimizer first, another later, inside a single `model.fit`.

    switch: make `to`, carry over the old one's settings and averages, build it, put it in the
            model, its compile configuration and its train function

Adam gets far fast; SGD with momentum often ends better (Keskar and Socher 2017, arXiv
1712.07628). What is carried over and what is refused:
`kpipe.train.optimizers.optimizer_state`.

The callback's state travels inside whatever weights file Keras writes during the fit, under
"kpipe_switch", and is read back before the optimizer is. So a file and what is known of its
optimizer cannot come apart, however a training is cut off.
"""

from __future__ import annotations

import abc
import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.keras_internals import Saveable, set_compiled_optimizer
from kpipe.train.optimizers.optimizer_factory import optimizer
from kpipe.train.optimizers.optimizer_state import (
    carry_settings,
    carry_state,
    keep_averaging,
    refuse_unable,
    unwrapped,
)
from kpipe.train.optimizers.switch_triggers import (
    PerStepTrigger,
    State,
    SwitchTrigger,
    Watch,
    refuse_other,
)

__all__ = ["StatefulCallback", "SwitchOptimizer"]

# Keras stores attributes in the order of their names: this one before "optimizer".
_ATTRIBUTE = "kpipe_switch"


class StatefulCallback(keras.callbacks.Callback, abc.ABC):
    """A Keras callback whose state survives in a checkpoint, as JSON."""

    @abc.abstractmethod
    def get_state(self) -> State:
        """The state after the last finished epoch, in JSON's types."""

    @abc.abstractmethod
    def set_state(self, state: State) -> None:
        """Goes on from a state that `get_state` gave."""


class SwitchOptimizer(StatefulCallback):
    """Replaces the model's optimizer once, when `when` says so.

    Works in any `model.fit`. A model saved after the switch comes back with the new optimizer, its
    slots and its iterations. The history gains "switched": 1 where an epoch ended with the new
    optimizer, else 0. A second `fit` with the same callback does not switch again, unless `reset()`
    is called between.

    With `keras.callbacks.BackupAndRestore` behind this callback in the list, a training that was
    cut off goes on with the optimizer that it had: run the same script again. Callbacks that set
    the learning rate act on the new optimizer; behind this one, from its first epoch on.

    Args:
        to: the new optimizer: a name, at Keras' default rate; a Keras optimizer, whose
            configuration is used; or a function of the epoch that makes one, which for SWATS also
            takes what SWATS decides: `learning_rate`, `momentum` and `nesterov`.
        when: an `AtEpoch`, an `OnPlateau`, a `SWATS`, for which `to` is SGD, or another
            `SwitchTrigger`.

    Attributes:
        switched_at: the epoch of the new optimizer's first step, the first being 0; None before.
        switched_step: how many batches of that epoch were the old optimizer's.

    Raises:
        TrainingError: an unknown name, or `when` is no moment.
    """

    def __init__(
        self,
        to: str | keras.optimizers.Optimizer | Callable[..., keras.optimizers.Optimizer],
        when: SwitchTrigger,
    ) -> None:
        super().__init__()
        refuse_other(when)
        self.when = when
        self.switched_at: int | None = None
        self.switched_step = 0
        self._make = _maker(to, when)
        self._seen = when.initial()
        self._averages = False
        self._watch: Watch | None = None
        self._epoch = 0
        self._finished: int | None = None
        self._resumed = False
        self._told = False

    def reset(self) -> None:
        """Forgets what was seen, so that the next fit may switch again."""
        self.switched_at, self.switched_step = None, 0
        self._seen = self.when.initial()
        self._averages = False
        self._finished = None

    def get_state(self) -> State:
        return {
            "switched_at": self.switched_at,
            "switched_step": self.switched_step,
            "averages": self._averages,
            "finished": self._finished,
            "seen": self._seen if self._watch is None else self._watch.state(),
        }

    def set_state(self, state: State) -> None:
        self.switched_at = state["switched_at"]
        self.switched_step = state["switched_step"]
        self._averages = state["averages"]
        self._finished = state["finished"]
        self._seen = state["seen"]

    def new_optimizer(self, epoch: int) -> keras.optimizers.Optimizer:
        """The optimizer for a switch at `epoch`, new and without state."""
        options = self.when.options(self._seen) if isinstance(self.when, PerStepTrigger) else {}
        return self._make(epoch, **options)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        object.__setattr__(model, _ATTRIBUTE, _StateInWeights(self))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch
        if self._resumed and self._finished is not None and self._finished < epoch:
            warnings.warn(
                f"the backup of epoch {epoch - 1} was written before SwitchOptimizer had seen that "
                "epoch, which will not count; let SwitchOptimizer stand before BackupAndRestore",
                stacklevel=2,
            )
        self._resumed = False
        if self.switched_at is None and self.when.due(self._seen, epoch):
            self._switch(epoch, 0)
        if self.switched_at is not None:
            if self._averages:
                keep_averaging(self.model.optimizer)
        elif self._watch is None and isinstance(self.when, PerStepTrigger):
            # Only now: as a fit begins, other callbacks may still restore an earlier state.
            self._watch = self.when.watch(self.model, self._seen)
            self.model.make_train_function(force=True)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._watch is not None and self._watch.due():
            self._switch(self._epoch, batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        self._finished = epoch + 1
        if self._watch is not None:
            self._seen = self._watch.state()
        elif self.switched_at is None:
            self._tell_missing(logs)
            self._seen = self.when.seen(self._seen, logs)
        if isinstance(self.when, PerStepTrigger):
            logs.update(self.when.logs(self._seen))
        logs["switched"] = float(self.switched_at is not None)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.model.__dict__.pop(_ATTRIBUTE, None)
        self._averages = False  # they have begun; another optimizer may come with another compile
        if self._watch is not None and isinstance(self.when, PerStepTrigger):
            self._stop_watching()
            self.model.train_function = None  # it was traced under watch
            if not self.when.due(self._seen, self._epoch + 1):
                warnings.warn(self.when.missed(self._seen), stacklevel=2)

    def _tell_missing(self, logs: Mapping[str, float]) -> None:
        monitor = getattr(self.when, "monitor", None)
        if monitor is not None and monitor not in logs and not self._told:
            self._told = True
            warnings.warn(
                f"the switch watches {monitor!r}, which this epoch did not report (it reported "
                f"{', '.join(sorted(logs))}): such epochs do not count; give validation data, or "
                "another monitor",
                stacklevel=3,
            )

    def _take_up(self, state: State) -> None:
        """Goes on from a state that stood in a weights file, before its optimizer is read."""
        if self.switched_at is not None and state["switched_at"] is None:
            return  # older weights are brought back: the optimizer stays
        switched = self.switched_at is None and state["switched_at"] is not None
        self._stop_watching()
        self.set_state(state)
        self._resumed = True
        if switched:
            self._install(state["switched_at"])

    def _switch(self, epoch: int, step: int) -> None:
        self._stop_watching()
        self.switched_at, self.switched_step = epoch, step
        old, new = self._install(epoch)
        if old.built:
            self._averages = carry_state(old, new, self.model.trainable_variables)
        if self._averages:
            keep_averaging(new)

    def _install(self, epoch: int) -> tuple[Any, Any]:
        model, old = self.model, self.model.optimizer
        refuse_unable(old)
        with model.distribute_strategy.scope():
            new = self.new_optimizer(epoch)
            refuse_unable(new)
            if new.built:
                raise TrainingError(
                    "the new optimizer has trained before",
                    expected="a new one at each call",
                    received=type(new).__name__,
                )
            new = carry_settings(old, new, model.trainable_variables)
            new.build(model.trainable_variables)
        model.optimizer = new
        # Keras saves the optimizer that compile() was given; a reload must find the one in use.
        set_compiled_optimizer(model, new)
        model.make_train_function(force=True)
        return old, new

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._seen = self._watch.state()
            self._watch.stop()
            self._watch = None


class _StateInWeights(Saveable):
    """Lets Keras write and read a callback's state with the weights of its model."""

    def __init__(self, callback: SwitchOptimizer) -> None:
        self._callback = callback

    def save_own_variables(self, store: Any) -> None:
        text = json.dumps(self._callback.get_state())
        store["state"] = np.frombuffer(text.encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        if "state" in store.keys():  # noqa: SIM118, not a mapping
            self._callback._take_up(json.loads(np.asarray(store["state"]).tobytes()))


def _maker(
    to: str | keras.optimizers.Optimizer | Callable[..., keras.optimizers.Optimizer],
    when: SwitchTrigger,
) -> Callable[..., keras.optimizers.Optimizer]:
    if not isinstance(to, str | keras.optimizers.Optimizer):
        _refuse_uncallable(to, when)
        return to
    # Misspelt names are refused here, not at the switch. A Keras optimizer belongs to the first
    # model that it trains; its configuration does not.
    made = optimizer(to)
    if isinstance(when, PerStepTrigger) and not isinstance(made, keras.optimizers.SGD):
        raise TrainingError(
            f"{type(when).__name__} chooses the rate and the momentum of SGD",
            expected='"sgd"',
            received=type(unwrapped(made)).__name__,
        )
    template = to if isinstance(to, str) else made
    return lambda _, **options: optimizer(template, **options)


def _refuse_uncallable(to: Any, when: SwitchTrigger) -> None:
    """Raises, before anything trains, for what cannot be called at the switch."""
    chosen = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": False}
    options = chosen if isinstance(when, PerStepTrigger) else {}
    if callable(to) and not isinstance(to, type):
        try:
            inspect.signature(to).bind(0, **options)
        except TypeError:
            pass
        except ValueError:  # a callable that does not tell its arguments
            return
        else:
            return
    raise TrainingError(
        "the new optimizer cannot be made of this",
        expected="a name, a Keras optimizer, or a function of the epoch"
        + (f" and of {', '.join(options)}" if options else "")
        + " that makes one",
        received=repr(to),
        fix=f"{to.__name__}()" if isinstance(to, type) else '"sgd"',
    )

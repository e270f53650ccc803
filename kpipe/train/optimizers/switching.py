"""The switch from one optimizer to another within a single `model.fit`.

    switch: create the new optimizer, copy settings and averages of the old one, build it, set it in
            the model, its compile configuration and its train function

Adam converges fast; SGD with momentum often generalizes better (Keskar and Socher 2017, arXiv
1712.07628). `kpipe.train.optimizers.optimizer_state` lists what the new optimizer inherits.

Every weights file that Keras writes during the fit holds the state of each callback under
"kpipe_switch", and Keras reads it before the optimizer. So the states always match the optimizer in
the file. The first callback's is "state", as in files of one switch, the second's "state_2".
"""

from __future__ import annotations

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
    continue_averaging,
    copy_settings,
    copy_state,
    inner_optimizer,
    refuse_unsupported,
)
from kpipe.train.optimizers.switch_triggers import PerStepTrigger, StepObserver, SwitchTrigger
from kpipe.train.stateful_callback import State, StatefulCallback
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["SwitchOptimizer"]

# Keras stores attributes in alphabetical order: this one before "optimizer".
_ATTRIBUTE = "kpipe_switch"


@names_wrong_kinds_of_fields
class SwitchOptimizer(StatefulCallback):
    """Switch to another optimizer once during `model.fit`.

    A model saved after the switch loads with the new optimizer, its slots and its iterations. The
    history gains "switched": 1 if an epoch ended with the new optimizer, else 0. A second `fit`
    with the same callback does not switch again unless `reset()` was called.

    To resume an interrupted training with the optimizer it had, list
    `keras.callbacks.BackupAndRestore` after this callback and run the same script again. Callbacks
    that set the learning rate act on the new optimizer, from its first epoch on if they are listed
    after this one. Several of these callbacks may follow each other in one fit.

    Args:
        to: the new optimizer: a name, with Keras' default learning rate; a Keras optimizer, whose
            configuration is copied; or a function of the epoch that returns one. For SWATS the
            function also receives `learning_rate`, `momentum` and `nesterov`.
        when: `AtEpoch`, `OnPlateau`, `SWATS` (`to` must be SGD), or another `SwitchTrigger`.

    Attributes:
        switched_at: the epoch of the new optimizer's first step, the first epoch being 0; None
            before the switch.
        switched_step: the number of batches of that epoch that the old optimizer trained.

    Raises:
        TrainingError: an unknown name, or not SGD for SWATS.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.train import AtEpoch, SwitchOptimizer
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> switch = SwitchOptimizer("sgd", AtEpoch(2))
        >>> x, y = np.ones((8, 4)), np.ones((8, 1))
        >>> history = model.fit(x, y, epochs=3, callbacks=[switch], verbose=0).history
        >>> history["switched"], model.optimizer.name
        ([0.0, 0.0, 1.0], 'sgd')
    """

    def __init__(
        self,
        to: str | keras.optimizers.Optimizer | Callable[..., keras.optimizers.Optimizer],
        when: SwitchTrigger,
    ) -> None:
        super().__init__()
        self.when = when
        self.switched_at: int | None = None
        self.switched_step = 0
        self._create = _factory(to, when)
        self._trigger_state = when.initial_state()
        self._averages = False
        self._observer: StepObserver | None = None
        self._epoch = 0
        self._finished: int | None = None
        self._resumed = False
        self._warned = False

    def reset(self) -> None:
        """Clear the state, so that the next fit may switch again."""
        self.switched_at, self.switched_step = None, 0
        self._trigger_state = self.when.initial_state()
        self._averages = False
        self._finished = None

    def get_state(self) -> State:
        return {
            "switched_at": self.switched_at,
            "switched_step": self.switched_step,
            "averages": self._averages,
            "finished": self._finished,
            "seen": self._trigger_state if self._observer is None else self._observer.state(),
        }

    def set_state(self, state: State) -> None:
        self.switched_at = state["switched_at"]
        self.switched_step = state["switched_step"]
        self._averages = state["averages"]
        self._finished = state["finished"]
        self._trigger_state = state["seen"]

    def new_optimizer(self, epoch: int) -> keras.optimizers.Optimizer:
        """Return a new optimizer, without state, for a switch at `epoch`."""
        if not isinstance(self.when, PerStepTrigger):
            return self._create(epoch)
        return self._create(epoch, **self.when.optimizer_arguments(self._trigger_state))

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        states = vars(self.model).get(_ATTRIBUTE)
        if states is None or states.fit is not params:  # left by a fit that was interrupted
            states = _StatesInWeights(params)
            object.__setattr__(self.model, _ATTRIBUTE, states)
        states.callbacks.append(self)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch
        if self._resumed and self._finished is not None and self._finished < epoch:
            warnings.warn(
                f"the backup of epoch {epoch - 1} was written before SwitchOptimizer processed it, "
                "so that epoch does not count; list SwitchOptimizer before BackupAndRestore",
                stacklevel=2,
            )
        self._resumed = False
        if self.switched_at is None and self.when.should_switch(self._trigger_state, epoch):
            self._switch(epoch, 0)
        if self.switched_at is not None:
            if self._averages:
                continue_averaging(self.model.optimizer)
        elif self._observer is None and isinstance(self.when, PerStepTrigger):
            # Not in on_train_begin, where other callbacks may still restore an earlier state.
            self._observer = self.when.observe(self.model, self._trigger_state)
            self.model.make_train_function(force=True)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._observer is not None and self._observer.should_switch():
            self._switch(self._epoch, batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        self._finished = epoch + 1
        if self._observer is not None:
            self._trigger_state = self._observer.state()
        elif self.switched_at is None:
            self._warn_of_missing_monitor(logs)
            self._trigger_state = self.when.update(self._trigger_state, logs)
        if isinstance(self.when, PerStepTrigger):
            logs.update(self.when.logs(self._trigger_state))
        logs["switched"] = float(self.switched_at is not None)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.model.__dict__.pop(_ATTRIBUTE, None)
        self._averages = False  # the averages go on; a new compile may bring another optimizer
        due = False
        if self._observer is not None:
            self._stop_observing()
            self.model.train_function = None  # it was traced with the observer
            due = self.when.should_switch(self._trigger_state, self._epoch + 1)
        if self.switched_at is None and not due:
            warnings.warn(self.when.no_switch_message(self._trigger_state), stacklevel=2)

    def _warn_of_missing_monitor(self, logs: Mapping[str, float]) -> None:
        monitor = getattr(self.when, "monitor", None)
        if monitor is not None and monitor not in logs and not self._warned:
            self._warned = True
            warnings.warn(
                f"the switch monitors {monitor!r}, which this epoch did not report (it reported "
                f"{', '.join(sorted(logs))}): such epochs do not count; pass validation data, or "
                "choose another monitor",
                stacklevel=3,
            )

    def restore_from_file(self, state: State) -> bool:
        """Restore the state of a weights file; return whether its optimizer is to be installed."""
        if self.switched_at is not None and state["switched_at"] is None:
            return False  # weights from before the switch: keep the optimizer
        switched = self.switched_at is None and state["switched_at"] is not None
        self._stop_observing()
        self.set_state(state)
        self._resumed = True
        return switched

    def install(self, epoch: int) -> tuple[Any, Any]:
        """Replace the model's optimizer; return the old one and the new one."""
        model, old = self.model, self.model.optimizer
        refuse_unsupported(old)
        with model.distribute_strategy.scope():
            new = self.new_optimizer(epoch)
            refuse_unsupported(new)
            if new.built:
                raise TrainingError(
                    "the new optimizer has already trained a model",
                    expected="a function that returns a new optimizer at each call",
                    received=type(new).__name__,
                )
            new = copy_settings(old, new, model.trainable_variables)
            new.build(model.trainable_variables)
        model.optimizer = new
        # Keras saves the optimizer passed to compile(); a saved model must hold the new one.
        set_compiled_optimizer(model, new)
        model.make_train_function(force=True)
        return old, new

    def _switch(self, epoch: int, step: int) -> None:
        self._stop_observing()
        self.switched_at, self.switched_step = epoch, step
        old, new = self.install(epoch)
        if old.built:
            self._averages = copy_state(old, new, self.model.trainable_variables)
        if self._averages:
            continue_averaging(new)

    def _stop_observing(self) -> None:
        if self._observer is not None:
            self._trigger_state = self._observer.state()
            self._observer.stop()
            self._observer = None


class _StatesInWeights(Saveable):
    """Make Keras write and read the states of a fit's switches with the weights of its model.

    Args:
        fit: the parameters that Keras gives all callbacks of one fit.
    """

    def __init__(self, fit: dict[str, Any]) -> None:
        self.fit = fit
        self.callbacks: list[SwitchOptimizer] = []

    def save_own_variables(self, store: Any) -> None:
        for name, callback in self._named():
            store[name] = np.frombuffer(json.dumps(callback.get_state()).encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        names = set(store.keys())
        if others := names - {name for name, _ in self._named()}:
            raise TrainingError(
                "the weights file holds the state of more SwitchOptimizers than this fit has",
                expected=f"{len(self.callbacks)}",
                received=f"{len(self.callbacks) + len(others)}",
                fix="resume with the callbacks of the interrupted fit",
            )
        switched = [
            callback
            for name, callback in self._named()
            if name in names
            and callback.restore_from_file(json.loads(np.asarray(store[name]).tobytes()))
        ]
        # In the order of the switches, since each optimizer inherits settings of the one before.
        for callback in sorted(switched, key=lambda each: (each.switched_at, each.switched_step)):
            assert callback.switched_at is not None
            callback.install(callback.switched_at)

    def _named(self) -> list[tuple[str, SwitchOptimizer]]:
        return [
            (f"state_{number}" if number > 1 else "state", callback)
            for number, callback in enumerate(self.callbacks, 1)
        ]


def _factory(
    to: str | keras.optimizers.Optimizer | Callable[..., keras.optimizers.Optimizer],
    when: SwitchTrigger,
) -> Callable[..., keras.optimizers.Optimizer]:
    if not isinstance(to, str | keras.optimizers.Optimizer):
        return to
    # Reject misspelt names here rather than at the switch. Copy a Keras optimizer's configuration,
    # since the optimizer itself belongs to the first model that it trains.
    template = optimizer(to)
    if isinstance(when, PerStepTrigger) and not isinstance(template, keras.optimizers.SGD):
        raise TrainingError(
            f"{type(when).__name__} chooses the learning rate and the momentum of SGD",
            expected='"sgd"',
            received=type(inner_optimizer(template)).__name__,
        )
    kind = to if isinstance(to, str) else template
    return lambda _, **arguments: optimizer(kind, **arguments)

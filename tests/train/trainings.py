"""Training configurations for tests that kill the process; together they have every state."""

from __future__ import annotations

import dataclasses

from kpipe.train import (
    SWATS,
    AtEpoch,
    FeatureConfig,
    OnPlateau,
    Phase,
    ReduceOnPlateau,
    TrainingConfig,
)

SWITCHING = TrainingConfig(
    epochs=6,
    learning_rate=0.01,
    schedule="cosine",
    switch_to="sgd",
    switch_learning_rate=0.05,
    switch_when=AtEpoch(3),
    class_weight={0: 1.0, 1: 2.0, 2: 0.5},
)
WAITING = TrainingConfig(
    epochs=6,
    optimizer="rmsprop",
    learning_rate=0.003,
    switch_to="sgd",
    switch_when=OnPlateau(patience=2, min_delta=0.2),
)
# Averages of the weights, SWATS, and a rate that falls on a plateau.
PROJECTING = TrainingConfig(
    epochs=6,
    learning_rate=0.01,
    schedule=ReduceOnPlateau(factor=0.3, patience=1, min_delta=0.05),
    switch_to="sgd",
    switch_when=SWATS(tolerance=0.05),
    ema_momentum=0.8,
)
STOPPED = dataclasses.replace(WAITING, epochs=9, patience=2)  # ends before its last epoch
CONFIGS = {"switching": SWITCHING, "waiting": WAITING}
PHASES = (
    Phase(TrainingConfig(epochs=4, learning_rate=0.01), features=FeatureConfig(views=2, seed=3)),
    Phase(SWITCHING, last=2),
    Phase(PROJECTING, last=None),
    Phase(STOPPED, last=None),
)

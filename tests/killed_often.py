"""Run a pipeline that is killed and resumed: `python -m tests.killed_often FILE ROOT KILLS SEED`.

One process imports TensorFlow and computes nothing. For each life of the run, it forks a child,
which kills itself with SIGKILL at an event of the journal, steps within epochs among them. The
kills are spread over all stages: a stage of n events and k kills has them at k random places.
Prints {stage: events of a run never killed} and [stage, event] of each kill.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import keras

from kpipe.cli import load_pipeline
from kpipe.core.journal import Event, Listener
from kpipe.core.runner import run

Life = tuple[str, int]  # the stage, and the number of its event that ends the life


def tiny(
    alpha: float = 1.0,
    include_top: bool = False,
    input_tensor: object = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | None = None,
) -> keras.Model:
    """A network of two blocks under the name of MobileNet, which takes seconds to trace."""
    pixels = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = pixels
    for block, width in enumerate((8, 16, 16)):
        name = f"block_{block}"
        x = keras.layers.Conv2D(width, 3, 2, padding="same", use_bias=False, name=name)(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.ReLU(6.0, name=f"{name}_relu")(x)
    return keras.Model(pixels, x, name="tiny")


def in_child(live: Callable[[], None]) -> int:
    """Run a function in a forked process, and return its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            live()
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killer(life: Life) -> Listener:
    """Return a listener that ends the process at the n-th event of a stage."""
    seen = 0

    def listen(event: Event) -> None:
        nonlocal seen
        seen += event.get("stage") == life[0]
        if seen == life[1]:
            print(json.dumps([life[0], event["event"]]), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def lives(counts: dict[str, int], kills: int, seed: int) -> list[Life]:
    """Draw the kills: each stage has one at least, and the longer ones have more."""
    draw = random.Random(seed)
    weights = {stage: min(count, 20) ** 0.5 for stage, count in counts.items()}
    shares = dict.fromkeys(counts, 1)
    while sum(shares.values()) < kills:
        stage = max(counts, key=lambda stage: weights[stage] / shares[stage])
        shares[stage] += 1
    found = []
    for stage, count in counts.items():
        share = min(shares[stage], count - 1)
        places = sorted(draw.sample(range(1, count), share))
        # A life repeats what is not kept, so it never gets beyond its place.
        found += [(stage, b - a) for a, b in zip([0, *places], places, strict=False)]
    return found


def main(file: str, root: str, kills: str, seed: str) -> None:
    pipeline = load_pipeline(Path(file))
    counted = Path(root, "counts.json")

    def never_killed() -> None:
        counts = collections.Counter[str]()
        listen: Listener = lambda event: counts.update([event.get("stage", "")])  # noqa: E731
        run(pipeline, Path(root, "never"), listeners=(listen,))
        counted.write_text(json.dumps(counts))

    def live(*listeners: Listener) -> None:
        run(pipeline, Path(root, "killed"), listeners=listeners)

    assert in_child(never_killed) == 0
    counts = {name: n for name, n in json.loads(counted.read_text()).items() if name and n > 2}
    print(json.dumps(counts), flush=True)
    for life in lives(counts, int(kills), int(seed)):
        code = in_child(functools.partial(live, killer(life)))
        assert code == -signal.SIGKILL, (life, code)
    assert in_child(live) == 0


if __name__ == "__main__":
    tiny.__module__ = keras.applications.MobileNet.__module__
    keras.applications.MobileNet = tiny
    main(*sys.argv[1:])

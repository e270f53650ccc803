"""Damage a `.tflite` file and use it: `python -m tests.lite.damaging FILE FIRST LAST`.

Prints each seed before its file is used, because LiteRT ends the process for a few of them.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kpipe.errors import ExportError
from kpipe.lite import Classifier, LiteModel, add_metadata, benchmark, evaluate
from kpipe.lite.runtime import benchmarking
from kpipe.lite.tflite_file import parse, serialize

LABELS = ["a", "b", "c"]
USES: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "labels": lambda path, image: Classifier(path).predict(image),
    "predict": lambda path, image: Classifier(path, LABELS).predict(image),
    "evaluate": lambda path, image: evaluate(path, (image[None], np.zeros(1, int)), workers=1),
    "benchmark": lambda path, image: benchmark(path, runs=1),
    "inspect": lambda path, image: LiteModel(path).inspect_delegation(),
    "metadata": lambda path, image: add_metadata(path, LABELS),
}

_LONGEST = 120  # seconds for a file, after which the process ends


def damage(content: bytes, seed: int) -> bytes:
    """Return the content of a file, damaged in one of eight ways."""
    random, damaged = np.random.default_rng(seed), bytearray(content)
    size, length = len(content), int(random.integers(1, 65))
    start, other = map(int, random.integers(size, size=2))
    span = slice(start, min(start + length, size))
    match seed % 8:
        case 0:  # one bit
            damaged[start] ^= 1 << int(random.integers(8))
        case 1:  # eight bytes
            for place in random.integers(size, size=8):
                damaged[place] = random.integers(256)
        case 2:  # the end is missing
            del damaged[start:]
        case 3:  # zeros
            damaged[span] = bytes(span.stop - start)
        case 4:  # random bytes
            damaged[span] = random.bytes(span.stop - start)
        case 5:  # bytes of another place: tables that point elsewhere
            damaged[span] = content[other : other + length]
        case 6:  # a number or an offset
            word = slice(start // 4 * 4, start // 4 * 4 + 4)
            value = int.from_bytes(damaged[word], "little", signed=True)
            values = [value + 4, value - 4, value + 1, 2 * value, -value, 0, -1, 2**31 - 1]
            changed = int(random.choice(values)) % 2**32
            damaged[word] = changed.to_bytes(4, "little")[: len(damaged[word])]
        case _:
            return _rewired(content, random)
    return bytes(damaged)


def _rewired(content: bytes, random: np.random.Generator) -> bytes:
    """A sound flatbuffer whose tensors and operations do not fit."""
    model = parse(content)
    graph = model.subgraphs[0]
    tensor = graph.tensors[random.integers(len(graph.tensors))]
    operation = graph.operators[random.integers(len(graph.operators))]
    anywhere = int(random.integers(len(graph.tensors)))
    match int(random.integers(7)):
        case 0:
            tensor.shape = np.array([*tensor.shape[:-1], random.choice([-1, 0, 7, 2**31 - 1])])
        case 1:
            tensor.type = int(random.integers(20))
        case 2:
            tensor.buffer = int(random.integers(len(model.buffers)))
        case 3:
            operation.inputs = np.array([anywhere, *operation.inputs[1:]])
        case 4:
            operation.outputs = np.array([anywhere, *operation.outputs[1:]])
        case 5:
            operation.opcodeIndex = int(random.integers(len(model.operatorCodes)))
        case _:
            graph.inputs = np.array([anywhere])
    return serialize(model)


def main(file: str, first: str, last: str) -> None:
    content = Path(file).read_bytes()
    path = Path(file).with_name("damaged.tflite")
    benchmarking.peak_memory = lambda source, threads: 0  # in this process
    for seed in range(int(first), int(last)):
        path.write_bytes(damage(content, seed))
        print(seed, flush=True)
        signal.alarm(_LONGEST)
        image = np.full((32, 32, 3), seed % 256, np.uint8)
        for use in USES.values():
            with contextlib.suppress(ExportError):
                use(path, image)


if __name__ == "__main__":
    main(*sys.argv[1:])

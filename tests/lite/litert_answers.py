"""Answers of a `.tflite` file, wherever LiteRT runs: FILE IMAGES.npy ANSWERS.npy."""

import platform
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

file, images, answers = sys.argv[1:]
model = Interpreter(model_path=file)
model.allocate_tensors()
(taken,), (given,) = model.get_input_details(), model.get_output_details()
found = []
for image in np.load(images):
    model.set_tensor(taken["index"], image[None].astype(taken["dtype"]))
    model.invoke()
    found.append(model.get_tensor(given["index"])[0])
np.save(answers, np.stack(found))
print(platform.machine())

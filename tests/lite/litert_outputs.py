"""Save the outputs of a `.tflite` file: python litert_outputs.py FILE IMAGES.npy OUTPUTS.npy."""

import platform
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

file, images, outputs = sys.argv[1:]
model = Interpreter(model_path=file)
model.allocate_tensors()
(pixels,), (scores,) = model.get_input_details(), model.get_output_details()
found = []
for image in np.load(images):
    model.set_tensor(pixels["index"], image[None].astype(pixels["dtype"]))
    model.invoke()
    found.append(model.get_tensor(scores["index"])[0])
np.save(outputs, np.stack(found))
print(platform.machine())

"""Print the scores of images as JSON, in an environment that has MediaPipe.

python mediapipe_scores.py FILE.tflite IMAGES.npy
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(options) as classifier:
    rows = []
    for pixels in np.load(sys.argv[2]):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        (found,) = classifier.classify(image).classifications
        rows.append({category.category_name: category.score for category in found.categories})
    print(json.dumps(rows))

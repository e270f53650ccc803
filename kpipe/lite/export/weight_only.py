"""The recipe without calibration images, by ai-edge-quantizer.

CONV_2D, FULLY_CONNECTED   int8 weights; activations quantized as they come, int8 arithmetic
DEPTHWISE_CONV_2D          int8 weights, turned back to floats; float arithmetic
all others                 float
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from ai_edge_quantizer import qtyping, quantizer

from kpipe.errors import ExportError

__all__ = ["mixed"]


def mixed(content: bytes) -> bytes:
    """A float32 `.tflite` file with int8 weights in these operations, each channel its scale.

    Args:
        content: the float32 file.

    Raises:
        ExportError: a file that has none of these operations, or that the quantizer refuses.
    """
    recipe = quantizer.Quantizer(content)
    for name in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        recipe.add_dynamic_config(regex=".*", operation_name=name, num_bits=8)
    recipe.add_weight_only_config(
        regex=".*", operation_name=qtyping.TFLOperationName.DEPTHWISE_CONV_2D, num_bits=8
    )
    nowhere = io.StringIO()  # it prints sizes and a progress bar
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            return bytes(recipe.quantize().quantized_model)
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                "ai-edge-quantizer refused the float32 file",
                received=str(error)[:2000],
                fix='quantize="dynamic" needs no calibration images either',
            ) from error

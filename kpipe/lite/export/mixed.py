"""Mixed quantization, by ai-edge-quantizer: int8 weights without calibration images.

CONV_2D, FULLY_CONNECTED   int8 weights; activations quantized at run time; int8 arithmetic
DEPTHWISE_CONV_2D          int8 weights, dequantized at run time; float arithmetic
all others                 float
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from ai_edge_quantizer import qtyping, quantizer

from kpipe.errors import ExportError

__all__ = ["quantize_mixed"]


def quantize_mixed(content: bytes) -> bytes:
    """Return a float32 `.tflite` file with int8 weights, one scale for each channel.

    Args:
        content: the float32 file.

    Raises:
        ExportError: the file has none of these operations, or the quantizer refuses it.
    """
    recipe = quantizer.Quantizer(content)
    for name in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        recipe.add_dynamic_config(regex=".*", operation_name=name, num_bits=8)
    recipe.add_weight_only_config(
        regex=".*", operation_name=qtyping.TFLOperationName.DEPTHWISE_CONV_2D, num_bits=8
    )
    discarded = io.StringIO()  # the quantizer prints sizes and a progress bar
    with redirect_stdout(discarded), redirect_stderr(discarded):
        try:
            return bytes(recipe.quantize().quantized_model)
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                "ai-edge-quantizer refused the float32 file",
                received=str(error)[:2000],
                fix='quantize="dynamic" needs no calibration images either',
            ) from error

"""Fold constant expressions (scales, masks, indices) with polygraphy.

Shape inference is left out: it took nine tenths of the time, and the exporter has folded the shapes of fixed axes.
"""

import onnx
from polygraphy.backend.onnx import fold_constants
from polygraphy.logger import G_LOGGER

from sdtrt.graph.run_passes import Result

VERSION = 1
# A mask expanded to full size is cheap to compute and expensive to store.
SIZE_LIMIT_BYTES = 1 << 20


def apply(model: onnx.ModelProto) -> Result[onnx.ModelProto]:
    """Fold to a fixed point."""
    before = len(model.graph.node)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        folded = fold_constants(model, size_threshold=SIZE_LIMIT_BYTES, error_ok=False, do_shape_inference=False)
    return Result(folded, changed=before - len(folded.graph.node))

"""What kind of work a TensorRT layer does, and in which precision: from its types, its tactic and its name.

Layers of TensorRT's own kernels say it in `ParameterType` or `LayerType`. Myelin's say `gemm`, `correlation` or `kgen`;
a `kgen` kernel was generated for the operators whose short names its tactic strings together
("__myl_CastMeanSubMulMeanAddSqrtDivMul_0x5f..."). A region that Myelin runs in one piece is "other" until the nodes in
it are known.
"""

import re

from sdtrt.plan.layers import DTYPE_BITS, Kind, TensorInfo
from sdtrt.readers.formats.tensorrt.tensors import TYPE_WORDS

# Parts of a lower-case type by the kind that they mean, in the order in which they are searched.
_PARTS_BY_KIND: dict[Kind, str] = {
    "other": "myelin foreignnode",
    "attention": "mha mhca attention",
    "conv": "conv fprop correlation",
    "gemm": "gemm matmul matrixmultiply fullyconnected",
    "norm": "softmax norm",
    "shape": "noop shape_call constant",
    "reformat": "reformat shuffle cast transpose reshape",
    "pointwise": "pool pointwise elementwise unary activation scale reduce select quantize",
    "copy": "concat slice padding resize gather scatter memset memcpy copy",
}
_PARTS = tuple((part, kind) for kind, parts in _PARTS_BY_KIND.items() for part in parts.split())
_EXACT: dict[str, Kind] = {"add": "pointwise", "mul": "pointwise", "sub": "pointwise", "div": "pointwise"}
# Types that say nothing of the work; a plugin's own name may.
_OPEN = ("fusion", "plugin", "custom", "unknown")
_REGROUP = frozenset({"cast", "tran", "resh", "move", "copy"})
_PICK = frozenset({"slic", "conc", "gath", "repl", "pad", "resi", "scat", "tile", "expa"})
_HEAVY: frozenset[Kind] = frozenset({"attention", "conv", "gemm", "norm"})
_MHA = re.compile(r"mhc?a(?![a-z])|flash_attention", re.I)
_LONGEST = 4000
_KGEN = re.compile(r"__myl_(?:bb\d+_\d+_)?([A-Za-z]\w*?)(?:_0x[0-9a-fA-F]+|_myl\d+\w*|\s.*)?$")
# xmma and cuBLAS name the operands' types: "sm90_xmma_gemm_f16f16_f16f32_f32", "ampere_bf16_s16816gemm".
_OPERAND = re.compile(r"(?:^|_)(bf16|fp16|f16|tf32|fp32|f32|f64|int8|i8|u8|i4|e4m3|e5m2|e2m1|fp8|fp4)(?![0-9])")
_SHORT = {"f16": "float16", "f32": "float32", "f64": "float64", "i4": "int4", "i8": "int8", "u8": "uint8"}
_OPERANDS = TYPE_WORDS | _SHORT


def tokens(text: str) -> tuple[str, ...]:
    """Operators of a generated kernel, in order and lower case: "__myl_CastMul_0x1a" gives cast and mul."""
    found = _KGEN.match(text)
    return tuple(t.lower() for t in re.findall(r"[A-Z][a-z0-9]*", found.group(1))) if found else ()


def kind_of(layer_type: str, parameter_type: str, tactic: str, name: str) -> Kind:
    """Kind of a layer by TensorRT's record of it.

    Args:
        layer_type: its `LayerType`.
        parameter_type: its `ParameterType`; empty for Myelin's layers.
        tactic: its `TacticName`, the kernel.
        name: its name.
    """
    lowered = layer_type.lower()
    if lowered == "kgen":
        return _kgen(tactic, name)
    for text in (parameter_type.lower(), lowered):
        if text in _EXACT:
            return _EXACT[text]
        kind = next((kind for part, kind in _PARTS if part in text), None)
        if kind is not None:
            return kind
    if any(word in lowered for word in _OPEN):
        hint = f"{tactic} {name.rpartition('/')[2]}".lower()
        return next((kind for part, kind in _PARTS if part in hint and kind in _HEAVY), "other")
    return "other"


def _kgen(tactic: str, name: str) -> Kind:
    if _MHA.search(tactic) or _MHA.search(name):
        return "attention"
    ops = frozenset(tokens(tactic[:_LONGEST]) or tokens(name[:_LONGEST]))
    if not ops:
        return "other"
    if ops & {"gemm", "matm", "fc"}:
        return "gemm"
    if ops & {"conv", "corr"}:
        return "conv"
    softmax = {"exp", "sum"} <= ops and bool(ops & {"max", "maxr"})
    if softmax or "softm" in ops or ("mean" in ops and bool(ops & {"sqrt", "rsqr"})):
        return "norm"
    if ops <= _REGROUP:
        return "reformat"
    return "copy" if ops <= _REGROUP | _PICK else "pointwise"


def precision_of(
    kind: Kind, native: bool, tactic: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
) -> str | None:
    """Type that the layer computes in.

    Args:
        kind: kind of the layer.
        native: True for TensorRT's own layers: the type is that of the first input, as in TREx. False for Myelin's: the
            operands' type where the kernel of a matmul names it, else that of the first input of real numbers, since
            masks and indices may come first.
        tactic: the kernel's name.
        inputs: tensors that the layer reads.
        outputs: tensors that it writes.
    """
    if native:
        return inputs[0].dtype if inputs else None
    operand = _OPERAND.search(tactic[:_LONGEST]) if kind in ("conv", "gemm", "attention") else None
    if operand is not None:
        return _OPERANDS[operand.group(1)]
    dtypes = [t.dtype for t in (*inputs, *outputs) if t.dtype in DTYPE_BITS]
    real = (d for d in dtypes if d is not None and ("float" in d or d in ("int8", "int4")))
    return next(real, dtypes[0] if dtypes else None)

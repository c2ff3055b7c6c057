"""The ONNX parser: refuses what NVIDIA's documents as unsupported, and says so in errors, not in exceptions."""

from __future__ import annotations

from pathlib import Path

import onnx

from tensorrt import _logger as log
from tensorrt import _model
from tensorrt._api import MAJOR, MINOR
from tensorrt._enums import ErrorCode
from tensorrt._operators import MIN_OPSET, max_opset, refusal
from tensorrt._strict import Bound, bound
from tensorrt._values import data_type


@bound
class ParserError(Bound):
    """One error; all of it is in methods."""

    def _setup(self, code, text, index=-1, node=None):
        self._code, self._text, self._index, self._node = code, text, index, node

    def code(self):
        return self._code

    def desc(self):
        return self._text

    def file(self):
        return "ModelImporter.cpp"

    def func(self):
        return "parseNode" if self._node else "parse"

    def line(self):
        return 0

    def node(self):
        return self._index

    def node_name(self):
        return self._node.name if self._node else ""

    def node_operator(self):
        return self._node.op_type if self._node else ""

    def local_function_stack(self):
        return []

    def local_function_stack_size(self):
        return 0


@bound
class OnnxParser(Bound):
    """Fills a network from an ONNX file."""

    def __init__(self, network, logger):
        log.register(logger, "createParser")
        self._network, self._errors, self._flags = network, [], 1 << 0

    def parse_from_file(self, model):
        path = Path(model.decode() if isinstance(model, bytes) else model)
        try:
            found = _model.load(path)
        except FileNotFoundError as exc:
            return self._fail(f"Failed to open file: {Path(str(exc.filename or path)).name}")
        except Exception as exc:  # noqa: BLE001 (whatever protobuf or the external data reader says)
            return self._fail(f"Failed to parse the ONNX model: {exc}")
        return self._take(found)

    def parse(self, model, path=None):
        found = onnx.load_from_string(bytes(model))
        outside = next((t for t in found.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL), None)
        if outside is not None:
            if path is None:
                return self._fail(f"Failed to open file: {outside.name}")
            onnx.external_data_helper.load_external_data_for_model(found, str(Path(path).parent))
        return self._take(found)

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index] if index < len(self._errors) else None

    def clear_errors(self):
        self._errors.clear()

    @property
    def flags(self):
        return self._flags

    @flags.setter
    def flags(self, value):
        self._flags = int(value)

    def set_flag(self, flag):
        self._flags |= 1 << int(flag)

    def clear_flag(self, flag):
        self._flags &= ~(1 << int(flag))

    def get_flag(self, flag):
        return bool(self._flags >> int(flag) & 1)

    def get_used_vc_plugin_libraries(self):
        return []

    def supports_operator(self, op_name):
        return refusal(op_name, set(), (MAJOR, MINOR)) is None

    def _take(self, model) -> bool:
        opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        if not MIN_OPSET <= opset <= max_opset((MAJOR, MINOR)):
            # The real parser warns and goes on; what it would then make of the nodes is not documented.
            return self._fail(f"Opset {opset} is outside of what this parser documents")
        types = _types(model)
        for index, node in enumerate(model.graph.node):
            first = {types.get(node.input[0])} if node.input else set()
            reason = refusal(node.op_type, first, (MAJOR, MINOR))
            if node.op_type == "Attention" and len([o for o in node.output if o]) != 1:
                reason = (
                    "Assertion failed: node.output().size() == 1: TensorRT only supports Attention nodes with one "
                    "output."
                )
            if reason is not None:
                self._fail(reason, index, node)
        if self._errors:
            return False
        for value in model.graph.input:
            if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
                log.warning(f"ModelImporter.cpp:503: Make sure input {value.name} has Int64 binding.")
        self._network._model = model
        return True

    def _fail(self, text: str, index: int = -1, node=None) -> bool:
        code = ErrorCode.UNSUPPORTED_NODE if node is not None else ErrorCode.MODEL_DESERIALIZE_FAILED
        self._errors.append(ParserError._make(code, text, index, node))
        where = f"In node {index} with name: {node.name} and operator: {node.op_type} " if node is not None else ""
        log.error(f"{where}(parseGraph): {code.name}: {text}")
        return False


def _types(model) -> dict[str, str | None]:
    """TensorRT's name of each tensor's type, where the file states it; FLOAT64 and the like come out as ONNX's name."""
    graph = model.graph
    numbers = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        numbers.setdefault(value.name, value.type.tensor_type.elem_type)
    named = {name: data_type(number) for name, number in numbers.items()}
    return {n: onnx.TensorProto.DataType.Name(numbers[n]) if t is None else t.name for n, t in named.items()}

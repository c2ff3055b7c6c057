"""The network that the parser fills: inputs, outputs and one layer per ONNX node."""

from __future__ import annotations

from tensorrt._api import MAJOR
from tensorrt._enums import LayerType, NetworkDefinitionCreationFlag, TensorLocation
from tensorrt._strict import Bound, bound
from tensorrt._values import Dims, data_type

_LAYERS = {
    "Conv": "CONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Softmax": "SOFTMAX",
    "Resize": "RESIZE",
    "Cast": "CAST",
    "Attention": "ATTENTION_INPUT",
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), "NORMALIZATION"),
    **dict.fromkeys(("Add", "Mul", "Sub", "Div", "Pow"), "ELEMENTWISE"),
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze"), "SHUFFLE"),
}


@bound
class ITensor(Bound):
    """An input or output of the network."""

    def _setup(self, value, is_input):
        self._value, self._is_input = value, is_input

    @property
    def name(self):
        return self._value.name

    @property
    def shape(self):
        sizes = self._value.type.tensor_type.shape.dim
        return Dims([d.dim_value if d.HasField("dim_value") else -1 for d in sizes])

    @property
    def dtype(self):
        return data_type(self._value.type.tensor_type.elem_type)

    @property
    def is_network_input(self):
        return self._is_input

    @property
    def is_network_output(self):
        return not self._is_input

    @property
    def is_shape_tensor(self):
        return False

    @property
    def location(self):
        return TensorLocation.DEVICE


@bound
class ILayer(Bound):
    """One ONNX node."""

    def _setup(self, node):
        self._node = node

    @property
    def name(self):
        return self._node.name

    @property
    def metadata(self):
        return f"[ONNX Layer: {self._node.name}]"

    @property
    def type(self):
        name = _LAYERS.get(self._node.op_type, "IDENTITY")
        return getattr(LayerType, name, LayerType.IDENTITY)


@bound
class INetworkDefinition(Bound):
    """What is built."""

    def _setup(self, flags):
        self._flags, self._model, self._marked = int(flags), None, set()
        self._name = ""

    def _typed(self) -> bool:
        return MAJOR >= 11 or self.get_flag(NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _weights(self) -> set[str]:
        return {t.name for t in self._model.graph.initializer} if self._model else set()

    @property
    def name(self):
        return self._name

    @name.setter
    def name(self, value):
        self._name = value

    @property
    def flags(self):
        return self._flags

    def get_flag(self, flag):
        return bool(self._flags >> int(flag) & 1)

    @property
    def num_inputs(self):
        return len(self._model.graph.input) if self._model else 0

    @property
    def num_outputs(self):
        return len(self._model.graph.output) if self._model else 0

    @property
    def num_layers(self):
        return len(self._model.graph.node) if self._model else 0

    def get_input(self, index):
        return ITensor._make(self._model.graph.input[index], True) if index < self.num_inputs else None

    def get_output(self, index):
        return ITensor._make(self._model.graph.output[index], False) if index < self.num_outputs else None

    def get_layer(self, index):
        return ILayer._make(self._model.graph.node[index]) if index < self.num_layers else None

    def mark_weights_refittable(self, name):
        if name in self._weights():
            self._marked.add(name)
        return name in self._marked

    def unmark_weights_refittable(self, name):
        self._marked.discard(name)
        return True

    def are_weights_marked_refittable(self, name):
        return name in self._marked

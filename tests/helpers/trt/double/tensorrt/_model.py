"""An ONNX file with its weights, as TensorRT's parser reads it: onnx's own loader takes no linked file."""

from pathlib import Path

import onnx


def load(path):
    """The model, everything in it."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}
            with (Path(path).parent / where["location"]).open("rb") as file:
                file.seek(int(where.get("offset", 0)))
                data = file.read(int(where["length"]))
            if len(data) != int(where["length"]):
                raise ValueError(f"{where['location']} ends before {tensor.name} does")
            tensor.raw_data = data
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model

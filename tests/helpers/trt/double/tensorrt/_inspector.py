"""The engine inspector, in the schema of TensorRT 10 and in that of 11."""

from __future__ import annotations

import json
import weakref

from tensorrt._api import MAJOR
from tensorrt._enums import LayerInformationFormat
from tensorrt._layers import describe
from tensorrt._strict import Bound, bound

_TYPE = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT64": "Int64", "INT32": "Int32"}


@bound
class EngineInspector(Bound):
    """Says what the layers of an engine are: names, or everything when built with detail."""

    def _setup(self, engine):
        self._engine = engine
        self._context = lambda: None

    @property
    def execution_context(self):
        return self._context()

    @execution_context.setter
    def execution_context(self, value):
        # The binding does not keep the context alive either.
        self._context = (lambda: None) if value is None else weakref.ref(value)

    def get_engine_information(self, format):
        if self._engine._plan.verbosity == "NONE":
            return "" if format == LayerInformationFormat.ONELINE else "{}"
        layers = self._describe()
        if format == LayerInformationFormat.ONELINE:
            return "Layers:\n" + "\n".join(map(_one_line, layers))
        found = {"Layers": layers}
        if MAJOR >= 11:
            found |= {"I/O Tensors": self._tensors(), "ProfilingVerbosity": self._engine._plan.verbosity}
            found |= {"Engine Metadata": {"Multi-Device": "Disabled"}}
        else:
            found |= {"Bindings": self._engine._names()}
        return json.dumps(found, indent=2)

    def get_layer_information(self, layer_index, format):
        layer = self._describe()[layer_index]
        return _one_line(layer) if format == LayerInformationFormat.ONELINE else json.dumps(layer)

    def _describe(self):
        engine, context = self._engine, self._context()
        known = context is not None and context.all_binding_shapes_specified
        shapes = dict(context._shapes) if known else None
        profiles = [context._profile] if known else range(engine.num_optimization_profiles)
        if engine._plan.verbosity == "LAYER_NAMES_ONLY":
            return [layer.name for layer in engine._layers()]
        return [
            describe(layer, engine._executor, shapes, engine._suffix(profile, layer))
            for profile in profiles
            for layer in engine._layers()
        ]

    def _tensors(self):
        engine = self._engine
        found = []
        for name in engine._names():
            is_input = name in engine._executor.inputs
            kind, profiles = engine._executor.dtype(name), []
            for profile in engine._plan.profiles if is_input else []:
                ranges = profile.get(name, [engine._executor.static_shape(name)] * 3)
                shapes = dict(zip(("MinShape", "OptShape", "MaxShape"), map(list, ranges), strict=True))
                profiles.append(shapes | {"Format": engine.get_tensor_format_desc(name)})
            found.append(
                {
                    "Name": name,
                    "IOMode": "Input" if is_input else "Output",
                    "DataType": _TYPE.get(kind.name, kind.name),
                    "Dimensions": list(engine._executor.static_shape(name)),
                    "Location": "Device",
                    "IsShapeInferenceIO": False,
                    "ProfileInfo": profiles,
                }
            )
        return found


def _one_line(layer) -> str:
    return layer if isinstance(layer, str) else ", ".join(f"{key}: {value}" for key, value in layer.items())

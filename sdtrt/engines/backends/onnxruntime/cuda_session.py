"""ONNX Runtime on CUDA: one stream per engine, no wait on the host, and one CUDA graph per shape.

A captured graph replays fixed addresses, so each shape has its own input and output tensors: inputs are copied in and
outputs copied out, which costs microseconds and saves a launch per node. The runtime cannot drop a captured graph, so
only the first `GRAPHS` shapes are captured; the others run without a graph and are counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GRAPHS = 8
Bind = Callable[[Any, Mapping[str, "Tensor"], Mapping[str, "Tensor"]], None]


@dataclass(frozen=True)
class _Captured:
    """The graph of one shape: its number, an ONNX Runtime binding and the tensors of that."""

    binding: Any
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    graph: int


class CudaSession:
    """Runs one session on its own stream; `uncaptured` counts the calls that ran without a graph for lack of room."""

    def __init__(self, device: torch.device, graphs: bool) -> None:
        import torch

        self.stream = torch.cuda.Stream(device)
        self.graphs = graphs
        self.uncaptured = 0
        self._lock = threading.Lock()
        self._captured: dict[tuple[tuple[int, ...], ...], _Captured] = {}

    def forget(self) -> None:
        """Drop all graphs, before their session is closed."""
        with self._lock:
            self._captured.clear()

    def provider_options(self) -> dict[str, str]:
        """Options of the CUDA provider for this session."""
        graph = {"enable_cuda_graph": "1"} if self.graphs else {}
        return {
            "device_id": str(self.stream.device.index or 0),
            "user_compute_stream": str(self.stream.cuda_stream),
            **graph,
        }

    def run(
        self, session: Any, inputs: Mapping[str, Tensor], new_outputs: Callable[[], dict[str, Tensor]], bind: Bind
    ) -> dict[str, Tensor]:
        """Run the session.

        Args:
            session: an `onnxruntime.InferenceSession` with the options of `provider_options`.
            inputs: contiguous tensors on the device, by name.
            new_outputs: allocates the outputs by name.
            bind: binds inputs and outputs to an `IOBinding`.

        Returns:
            The outputs by name, ready in the order of the caller's stream.
        """
        import torch

        caller = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(caller)
        with self._lock, torch.cuda.stream(self.stream):
            captured = self._capture(session, inputs, new_outputs, bind)
            if captured is None:
                outputs = new_outputs()
                binding = session.io_binding()
                bind(binding, inputs, outputs)
                session.run_with_iobinding(binding, _options(-1 if self.graphs else None))
            else:
                for name, tensor in inputs.items():
                    captured.inputs[name].copy_(tensor)
                session.run_with_iobinding(captured.binding, _options(captured.graph))
                outputs = {n: t.clone() for n, t in captured.outputs.items()}
        # The allocator may not reuse their memory before both streams are done with it.
        for tensor in inputs.values():
            tensor.record_stream(self.stream)
        for tensor in outputs.values():
            tensor.record_stream(caller)
        caller.wait_stream(self.stream)
        return outputs

    def _capture(
        self, session: Any, inputs: Mapping[str, Tensor], new_outputs: Callable[[], dict[str, Tensor]], bind: Bind
    ) -> _Captured | None:
        if not self.graphs:
            return None
        shapes = tuple(tuple(t.shape) for t in inputs.values())
        if shapes not in self._captured:
            if len(self._captured) == GRAPHS:
                self.uncaptured += 1
                return None
            buffers, outputs = {n: t.clone() for n, t in inputs.items()}, new_outputs()
            binding = session.io_binding()
            bind(binding, buffers, outputs)
            self._captured[shapes] = _Captured(binding, buffers, outputs, len(self._captured))
        return self._captured[shapes]


def _options(graph: int | None) -> Any:
    import onnxruntime as ort

    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if graph is not None:
        options.add_run_config_entry("gpu_graph_id", str(graph))
    return options

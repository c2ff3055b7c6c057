"""Times of a package's launches, by torch's profiler: CUPTI on a GPU, one record per call on the CPU.

The package runs without a CUDA graph. A Triton kernel is found by its name on the device, a library call by the
operator that torch records and all device kernels that this one launched. Both sequences, what should run and what
ran, are aligned in order; notes list what ran without belonging to a launch, and launches that were not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.profiling.launches import NATIVE
from sdtrt.plan.layers import Layer

if TYPE_CHECKING:
    import torch

_RUN = "sdtrt.plan.image_timing"
# What torch and Inductor record around everything; the launches are inside.
_FRAMES = (_RUN, "## Call", "CompiledFxGraph", "AOTDispatcher", "Torch-Compiled Region", "Runtime")


@dataclass(frozen=True)
class Event:
    """What the profiler recorded: an operator on the CPU, or, `on_device`, a kernel and the id of its operator."""

    name: str
    start_ns: int
    end_ns: int
    id: int = 0
    linked: int = 0
    on_device: bool = False


@dataclass(frozen=True)
class Ran:
    """One thing that ran: a kernel that no operator launched, or an operator with all that it launched.

    `kernel` is the longest of those, by its name on the device.
    """

    key: str
    time_ms: float
    kernel: str | None = None


def measure(
    run: Callable[[], object], layers: Sequence[Layer], device: torch.device, runs: int
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Time the launches of a package.

    Args:
        run: runs the package once, without a CUDA graph.
        layers: the launches that one run should make, in order.
        device: the device that they run on.
        runs: number of timed runs; one more comes before them.

    Returns:
        The layers with one time in milliseconds per run, and notes on what could not be matched.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _recorded(layers):
        run()
        with profile(activities=activities, acc_events=True) as profiler:  # torch 2.11 warns without it
            for _ in range(1 + runs):  # the first finds the profiler cold
                with record_function(_RUN):
                    run()
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
    return matched(layers, list(runs_of(_events(profiler), device.type == "cuda"))[1:])


def matched(layers: Sequence[Layer], runs: Sequence[Sequence[Ran]]) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Give layers the times of what ran under their keys, in order, and library calls the kernels that they chose."""
    keys = [key_of(layer) for layer in layers]
    times: list[list[float]] = [[] for _ in layers]
    kernels: list[str | None] = [layer.kernel for layer in layers]
    strange: dict[str, float] = {}
    for ran in runs:
        seen = set()
        matcher = SequenceMatcher(None, keys, [r.key for r in ran], autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                found = ran[block.b + offset]
                times[block.a + offset].append(found.time_ms)
                kernels[block.a + offset] = found.kernel or kernels[block.a + offset]
                seen.add(block.b + offset)
        for index, other in enumerate(ran):
            if index not in seen:
                strange[other.key] = strange.get(other.key, 0.0) + other.time_ms / len(runs)
    timed = tuple(
        layer.model_copy(update={"times_ms": tuple(ms) if ms and len(ms) == len(runs) else None, "kernel": kernel})
        for layer, ms, kernel in zip(layers, times, kernels, strict=True)
    )
    return timed, tuple(_notes(timed, strange))


def key_of(layer: Layer) -> str:
    """What the profiler calls a layer: the kernel, or torch's operator ("aten::addmm")."""
    kernel = layer.kernel or ""
    if layer.attributes.get(NATIVE) != "extern":
        return kernel
    path = kernel.removesuffix(".default").split(".")
    space = path[2] if path[:2] == ["torch", "ops"] else "aten"
    name = path[3] if path[:2] == ["torch", "ops"] else path[1]
    return f"{space}::{name.removeprefix('bias_').removesuffix('_dtype')}"


@contextmanager
def _recorded(layers: Sequence[Layer]) -> Iterator[None]:
    """While open, every call of a C++ kernel is a profiler record: they are functions of the generated modules."""
    from torch._inductor.codecache import PyCodeCache
    from torch.profiler import record_function

    def recording(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with record_function(name):
                return kernel(*arguments)

        return call

    names = {layer.kernel for layer in layers if layer.kernel and layer.attributes.get(NATIVE) == "cpp"}
    with ExitStack() as stack:
        for module in map(vars, PyCodeCache.modules):
            found = {n: module[n] for n in names if n in module}
            stack.callback(module.update, found)
            module.update({n: recording(n, kernel) for n, kernel in found.items()})
        yield


def _events(profiler: Any) -> list[Event]:
    """What torch recorded, without the driver's calls and the annotations that it repeats on the device."""
    found = []
    for e in profiler.profiler.kineto_results.events():
        on_device = "CPU" not in str(e.device_type())
        if (e.is_user_annotation() if on_device else e.linked_correlation_id()) or e.name().startswith("profiler::"):
            continue
        linked = e.linked_correlation_id()
        found.append(Event(e.name(), e.start_ns(), e.end_ns(), e.correlation_id(), linked, on_device))
    return found


def runs_of(events: Sequence[Event], on_gpu: bool) -> Iterator[list[Ran]]:
    """What ran in each run, in the order in which it ran."""
    for frame in sorted((e for e in events if e.name == _RUN), key=lambda e: e.start_ns):
        inside = [e for e in events if frame.start_ns <= e.start_ns and e.end_ns <= frame.end_ns]
        inside.sort(key=lambda e: (e.start_ns, -e.end_ns))
        owners = _owners([e for e in inside if not e.on_device])
        if on_gpu:
            yield _kernels([e for e in inside if e.on_device], owners)
        else:
            outermost = {owner.id: owner for owner in owners.values()}
            yield [Ran(e.name, (e.end_ns - e.start_ns) / 1e6) for e in outermost.values()]


def _owners(operators: Sequence[Event]) -> dict[int, Event]:
    """For each operator, by its id, the outermost one around it; frames are none."""
    owners: dict[int, Event] = {}
    outermost: Event | None = None
    for e in operators:
        if e.name.startswith(_FRAMES):
            continue
        if outermost is None or e.start_ns >= outermost.end_ns:
            outermost = e
        owners[e.id] = outermost
    return owners


def _kernels(kernels: Sequence[Event], owners: Mapping[int, Event]) -> list[Ran]:
    """Kernels summed by the operator that launched them; one that none launched, which is Triton's, is alone.

    Around those, too, Inductor opens a record, of the kernel's name in its module: on the device one written by hand
    has another. Operators are known by their namespace.
    """
    places: dict[tuple[str, int], list[Event]] = {}
    for e in kernels:
        owner = owners.get(e.linked)
        place = (owner.name, owner.id) if owner and "::" in owner.name else (e.name, -e.start_ns)
        places.setdefault(place, []).append(e)
    return [
        Ran(
            name,
            sum(e.end_ns - e.start_ns for e in launched) / 1e6,
            max(launched, key=lambda e: e.end_ns - e.start_ns).name,
        )
        for (name, _), launched in places.items()
    ]


def _notes(layers: Sequence[Layer], strange: Mapping[str, float]) -> Iterator[str]:
    missing = [layer.name for layer in layers if layer.times_ms is None]
    if missing:
        yield f"{len(missing)} launches were not seen by the profiler, such as {missing[0]}"
    if strange:
        longest = sorted(strange, key=lambda key: -strange[key])
        listed = ", ".join(f"{key[:80]} {strange[key]:.3g} ms" for key in longest[:5])
        yield f"{len(strange)} kinds of kernels with {sum(strange.values()):.3g} ms belong to no launch: {listed}"

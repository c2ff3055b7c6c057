"""TensorRT's double for the engine's own tests, and a small network built with it."""

import pytest
import torch
from trt import bindings, small, use

from sdtrt.engines.backends.tensorrt.building import isolated_build
from sdtrt.engines.backends.tensorrt.building.build_messages import BuildJob
from sdtrt.engines.backends.tensorrt.error_table import ErrorContext
from sdtrt.engines.backends.tensorrt.options import RUN_OPTIONS, TrtOptions
from sdtrt.engines.backends.tensorrt.running import deserialize
from sdtrt.engines.backends.tensorrt.running.plan_file import PLAN
from sdtrt.engines.backends.tensorrt.running.session import Session

CONTEXT = ErrorContext("small", "sdtrt build")


@pytest.fixture(params=[min(bindings.RELEASES), max(bindings.RELEASES)])
def release(request):
    """The oldest and the newest release."""
    return request.param


@pytest.fixture
def double(release, cache):
    """The double as `tensorrt`, here and in the processes that build."""
    try:
        with use.tensorrt(release, cache):
            yield release
    except bindings.Unreachable as exc:
        pytest.skip(f"NVIDIA's bindings cannot be fetched: {exc}")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """The small network's file."""
    return small.model(tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def build(double, onnx, tmp_path):
    """build(**options) makes a plan of the small network in a child process and returns its path."""

    def make(profiles=(small.RANGES,), progress=lambda label, share: None, timing_cache=None, path=onnx, **options):
        plan = tmp_path / PLAN
        make.notes = isolated_build.build_in_subprocess(
            BuildJob(
                onnx=str(path),
                plan=str(plan),
                profiles=profiles,
                options=TrtOptions(**options),
                timing_cache=timing_cache,
            ),
            CONTEXT,
            progress,
        )
        return plan

    return make


@pytest.fixture(scope="module")
def plans():
    """Plans that were built already."""
    return {}


@pytest.fixture
def open_session(build, double, plans, tmp_path):
    """open_session(**options) builds a plan when it is first asked for, and loads it; sessions are closed at last."""
    made = []

    def make(profiles=(small.RANGES,), **options):
        chosen = TrtOptions(**options)
        key = (double, str(profiles), str(chosen.model_dump(exclude=RUN_OPTIONS)))
        if key not in plans:
            plans[key] = build(profiles, **options).read_bytes()
        path = tmp_path / f"{len(made)}.plan"
        path.write_bytes(plans[key])
        engine = deserialize.deserialize_plan(path, chosen, CONTEXT)
        made.append(Session(engine, torch.device("cpu"), chosen, CONTEXT))
        return made[-1]

    yield make
    for session in made:
        session.close()


@pytest.fixture
def expected(onnx):
    """expected(tensors): what ONNX Runtime makes of the network."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])

    def run(tensors):
        return torch.from_numpy(session.run(None, {n: t.numpy() for n, t in tensors.items()})[0])

    return run

"""What a profiler saw, brought together with what should have run."""

from sdtrt.engines.backends.inductor.profiling.timing import Event, Ran, key_of, matched, runs_of
from sdtrt.plan.layers import Layer


def layer(kernel, native="extern"):
    return Layer(name=kernel, kind="other", op="op", kernel=kernel, attributes={"native": native})


LAYERS = [
    layer("extern_kernels.addmm"),
    layer("triton_a", "triton"),
    layer("extern_kernels.addmm"),
    layer("_b", "triton"),
]
SEEN = [Ran("aten::addmm", 1.0), Ran("triton_a", 2.0), Ran("aten::addmm", 3.0), Ran("_b", 4.0)]


def test_keys_are_what_the_profiler_writes():
    assert key_of(layer("extern_kernels.bias_addmm")) == "aten::addmm"
    assert key_of(layer("extern_kernels.bmm_dtype")) == "aten::bmm"
    assert key_of(layer("torch.ops.aten._scaled_mm.default")) == "aten::_scaled_mm"
    assert key_of(layer("torch.ops.mkldnn._linear_pointwise.default")) == "mkldnn::_linear_pointwise"
    assert key_of(layer("cpp_fused_0", "cpp")) == "cpp_fused_0"


def test_layers_are_matched_in_order():
    timed, notes = matched(LAYERS, [SEEN, SEEN])
    assert [x.times_ms for x in timed] == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]
    assert notes == ()


def test_what_belongs_to_no_launch_is_told():
    stray = Ran("Memcpy DtoD", 0.5)
    timed, notes = matched(LAYERS, [[SEEN[0], stray, *SEEN[1:]]] * 2)
    assert [x.time_ms for x in timed] == [1.0, 2.0, 3.0, 4.0]
    assert notes == ("1 kinds of kernels with 0.5 ms belong to no launch: Memcpy DtoD 0.5 ms",)


def test_a_launch_that_was_not_seen_in_every_run_has_no_time():
    timed, notes = matched(LAYERS, [SEEN, [SEEN[0], *SEEN[2:]]])
    assert [x.times_ms is None for x in timed] == [False, True, False, False]
    assert notes == ("1 launches were not seen by the profiler, such as triton_a",)


def test_kernels_go_to_the_operator_that_launched_them():
    """An addmm with two kernels, one of them from an inner operator, and a Triton kernel between two of its like."""
    ms = 1_000_000
    events = [
        Event("sdtrt.plan.image_timing", 0, 100 * ms, id=1),
        Event("## Call CompiledFxGraph x ##", 1, 50 * ms, id=2),
        Event("aten::addmm", 10, 20, id=3),
        Event("aten::copy_", 12, 14, id=4),
        Event("aten::addmm", 30, 40, id=5),
        Event("first", 2 * ms, 3 * ms, linked=4, on_device=True),
        Event("second", 3 * ms, 5 * ms, linked=3, on_device=True),
        Event("triton_a", 5 * ms, 9 * ms, linked=2, on_device=True),
        Event("third", 9 * ms, 10 * ms, linked=5, on_device=True),
        Event("later", 200 * ms, 201 * ms, linked=5, on_device=True),
    ]
    (ran,) = runs_of(events, on_gpu=True)
    assert [(r.key, r.time_ms) for r in ran] == [("aten::addmm", 3.0), ("triton_a", 4.0), ("aten::addmm", 1.0)]
    assert [r.kernel for r in ran] == ["second", "triton_a", "third"]
    timed, _ = matched(LAYERS[:3], [ran])
    assert [x.kernel for x in timed] == ["second", "triton_a", "third"]


def test_a_kernel_written_by_hand_is_known_by_its_name_on_the_device():
    """Inductor launches it inside of a record that has the name of its own variable."""
    events = [
        Event("sdtrt.plan.image_timing", 0, 100, id=1),
        Event("_b_34", 10, 20, id=2),
        Event("aten::mm", 21, 25, id=3),
        Event("_b_7", 26, 29, id=4),
        Event("_b", 30, 40, linked=2, on_device=True),
        Event("sgemm", 41, 42, linked=3, on_device=True),
        Event("_b", 50, 55, linked=4, on_device=True),
    ]
    (ran,) = runs_of(events, on_gpu=True)
    assert [r.key for r in ran] == ["_b", "aten::mm", "_b"]
    assert [r.kernel for r in ran] == ["_b", "sgemm", "_b"]


def test_on_the_cpu_the_outermost_operators_count():
    events = [
        Event("sdtrt.plan.image_timing", 0, 9_000_000, id=1),
        Event("aten::convolution", 1_000_000, 3_000_000, id=2),
        Event("aten::mkldnn_convolution", 1_500_000, 2_500_000, id=3),
        Event("cpp_fused_0", 3_000_000, 3_500_000, id=4),
    ]
    assert list(runs_of(events, on_gpu=False)) == [[Ran("aten::convolution", 2.0), Ran("cpp_fused_0", 0.5)]]

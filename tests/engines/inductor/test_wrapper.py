"""The Python around Inductor's kernels, read into launches: written by hand, as short as it can be."""

import pytest

from sdtrt.engines.backends.inductor.profiling import wrapper
from sdtrt.errors import EngineError

GPU = """
from torch._inductor.async_compile import AsyncCompile
async_compile = AsyncCompile()

# Topologically Sorted Source Nodes: [silu], Original ATen: [aten.silu]
triton_poi_fused_silu_0 = async_compile.triton('triton_poi_fused_silu_0', '''
@triton.jit
def triton_poi_fused_silu_0(in_out_ptr0, in_ptr0, xnumel, XBLOCK : tl.constexpr):
    pass
''', device_str='cuda')

_sums_1 = async_compile.triton('_sums', '''
@triton.jit
def _sums(
    x, y, count, BLOCK: tl.constexpr,
):
    \\"\\"\\"What a user wrote.\\"\\"\\"
    where = y + tl.program_id(0)
    tl.store(where + 1, tl.load(x))
''', device_str='cuda')

async_compile.wait(globals())

class Runner:
    def call(self, args):
        arg0_1, arg1_1, arg2_1 = args
        args.clear()
        assert_size_stride(arg0_1, (8, 4), (4, 1))
        with torch.cuda._DeviceGuard(0):
            torch.cuda.set_device(0)
            buf0 = empty_strided_cuda((2, 8), (8, 1), torch.float16)
            # Topologically Sorted Source Nodes: [linear], Original ATen: [aten.t, aten.addmm]
            extern_kernels.addmm(arg1_1, arg2_1, reinterpret_tensor(arg0_1, (4, 8), (1, 4), 0), alpha=1, out=buf0)
            del arg0_1
            buf1 = buf0; del buf0  # reuse
            # Topologically Sorted Source Nodes: [linear, silu], Original ATen: [aten.silu]
            stream0 = get_raw_stream(0)
            triton_poi_fused_silu_0.run(buf1, arg1_1, 16, stream=stream0)
            buf4 = empty_strided_cuda((4, 8), (8, 1), torch.float16)
            buf2 = reinterpret_tensor(buf4, (2, 8), (8, 1), 0)  # alias
            # Unsorted Source Nodes: [norm], Original ATen: []
            stream0 = get_raw_stream(0)
            _sums_1.run(buf1, buf2, 16, 4, stream=stream0)
            # Topologically Sorted Source Nodes: [attention], Original ATen: [aten._scaled_dot_product_cudnn_attention]
            buf5 = torch.ops.aten._scaled_dot_product_cudnn_attention.default(buf4, buf1, buf1, None, False)
            buf6 = buf5[0]
            assert_size_stride(buf6, (4, 8), (8, 1), 'torch.ops.aten._scaled_dot_product_cudnn_attention.default')
            del buf5
        return (buf6, )

def benchmark_compiled_module(args):
    extern_kernels.mm(args)
"""

CPU = """
cpp_fused_add_0 = async_compile.cpp_pybinding(['const at::Half*', 'at::Half*'], r'''
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C"  void  kernel(const at::Half* in_ptr0,
                       at::Half* out_ptr0)
{
}
''')

def call(args):
    arg0_1, = args
    buf0 = empty_strided_cpu((3, ), (1, ), torch.float32)
    # Topologically Sorted Source Nodes: [add], Original ATen: [aten.add]
    cpp_fused_add_0(arg0_1, buf0)
    return (buf0, )
"""


@pytest.fixture(scope="module")
def launches():
    return wrapper.read(GPU)


def test_launches_stand_in_their_order(launches):
    assert [x.call.rpartition(".")[2] for x in launches[:1]] == ["addmm"]
    assert [x.kernel for x in launches[1:3]] == ["triton_poi_fused_silu_0", "_sums"]
    assert [x.native for x in launches] == ["extern", "triton", "triton", "extern"]


def test_comments_name_the_nodes_of_the_launch_below(launches):
    assert [x.nodes for x in launches] == [("linear",), ("linear", "silu"), ("norm",), ("attention",)]
    assert launches[0].aten == ("aten.t", "aten.addmm")
    assert launches[2].aten == ()


def test_tensors_have_the_shape_in_which_they_are_seen(launches):
    assert [(t.name, t.shape) for t in launches[0].reads][-1] == ("arg0_1", (4, 8))
    assert [(t.name, t.shape, t.dtype) for t in launches[0].writes] == [("buf0", (2, 8), "float16")]


def test_arguments_are_known_by_their_position(launches):
    assert launches[0].arguments == {"arg1_1": 1, "arg2_1": 2, "arg0_1": 0}
    assert launches[1].arguments == {"arg1_1": 1}


def test_reused_memory_is_read_under_the_name_that_it_was_written_under(launches):
    assert [t.name for t in launches[1].reads] == ["buf0", "arg1_1"]
    assert [t.name for t in launches[1].writes] == ["buf1"]


def test_a_hand_written_kernel_writes_what_it_stores_to(launches):
    assert [t.name for t in launches[2].reads] == ["buf1"]
    assert [t.name for t in launches[2].writes] == ["buf2"]


def test_what_was_written_in_parts_is_read_as_its_parts(launches):
    assert [t.name for t in launches[3].reads] == ["buf2", "buf1"]


def test_what_a_library_call_returns_is_described_by_the_assertion_below(launches):
    assert [(t.name, t.shape) for t in launches[3].writes] == [("buf5", (4, 8))]


def test_code_for_the_cpu_has_functions_for_kernels():
    (launch,) = wrapper.read(CPU)
    assert (launch.kernel, launch.native, launch.nodes) == ("cpp_fused_add_0", "cpp", ("add",))
    assert [t.name for t in launch.reads] == ["arg0_1"]
    assert [t.name for t in launch.writes] == ["buf0"]


def test_other_text_is_refused():
    with pytest.raises(EngineError, match="function `call`"):
        wrapper.read("def main(): pass")

"""Options of the TensorRT backend, each with its cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sdtrt.system.json_records import Record

# Options of loading and timing: an engine stays valid when they change, so they are no part of its key.
RUN_OPTIONS = frozenset(
    {"gpu", "cuda_graphs", "weight_budget_mib", "profile_warmup", "refit_check", "timing_cache", "timing_cache_folder"}
)


class TrtOptions(Record):
    """How TensorRT builds and runs. Precision is no option: it is a property of the graph."""

    gpu: int = Field(0, ge=0, description="number of the GPU to build and run on, as CUDA counts them")
    optimization_level: int = Field(
        3,
        ge=0,
        le=5,
        description="how many kernels are tried: each level above 3 builds longer for a few per cent; "
        "below 3 builds sooner and runs slower, and at 0 some layers find no kernel",
    )
    workspace_mib: int | None = Field(
        None,
        ge=1,
        description="cap on the builder's scratch memory; none by default, since a cap drops fast kernels "
        "and can leave a layer without any",
    )
    tiling: Literal["none", "fast", "moderate", "full"] = Field(
        "none",
        description="search for ways to run several layers tile by tile within the L2 cache: much longer builds, "
        "a gain where activations exceed the cache",
    )
    aux_streams: int | None = Field(
        0,
        ge=0,
        description="streams for independent layers beside the main one: each needs activation memory of its "
        "own, and a U-Net has little that is independent; null leaves the number to TensorRT",
    )
    tf32: bool = Field(
        True,
        description="matmuls of float32 tensors with a mantissa of 10 bits: up to 8 times as fast, errors of "
        "about 1e-3; switch it off in fp32 builds that must agree with the CPU",
    )
    guided_only: bool = Field(
        False,
        description="build for classifier-free guidance only: the smallest batch of the U-Net is two per image, and "
        "running without guidance is refused",
    )
    version_compatible: bool = Field(
        False,
        description="a plan that later releases of the same major version can load: larger, slower, and it "
        "contains host code, so load only plans that you trust",
    )
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"] = Field(
        "none",
        description="a plan for other GPUs too: those of the same compute capability cost little; all since "
        "Ampere lose the kernels that newer ones have",
    )
    weight_streaming: bool = Field(
        False,
        description="weights may stay in host memory and be copied while layers run: for models that do not fit; "
        "slower, and without CUDA graphs while weights are streamed",
    )
    weight_budget_mib: int | None = Field(
        None, ge=0, description="GPU memory for the weights of each engine that streams them; all of them by default"
    )
    strip_plan: bool = Field(
        False,
        description="a plan without weights, which are set from the ONNX file at each load: a small plan to "
        "distribute, but slower loading and the ONNX file beside it",
    )
    refit: Literal["none", "identical", "all"] = Field(
        "none",
        description="weights can be replaced in the engine, as LoRA needs: `all` gives up kernels that need the "
        "weights at build time, and 11.3 may drop a bias; `identical` loses nothing but takes only the same weights",
    )
    refit_check: bool = Field(
        True,
        description="compare an engine with eager PyTorch on the CPU, at the smallest size, after each change of LoRA: "
        "seconds for a large U-Net, and its weights once more in float32; off, results must only be finite",
    )
    keep_onnx: bool = Field(
        False, description="keep the ONNX file beside the plan, for trtexec and viewers: as large as the engine"
    )
    timing_cache: bool = Field(
        True, description="keep kernel timings between builds: a second build takes a fraction of the time"
    )
    timing_cache_folder: str | None = Field(
        None, description="their folder, one file per TensorRT version and GPU; the user's cache by default"
    )
    cuda_graphs: int = Field(
        8,
        ge=0,
        description="shapes per engine that are replayed as CUDA graphs, from their second call on: each holds "
        "its inputs and outputs once more; 0 switches them off",
    )
    profile_warmup: int = Field(10, ge=1, description="runs before those that are timed")

    @model_validator(mode="after")
    def _consistent(self) -> TrtOptions:
        if self.weight_budget_mib is not None and not self.weight_streaming:
            raise ValueError("weight_budget_mib needs weight_streaming: true")
        if self.strip_plan and self.version_compatible:
            raise ValueError("strip_plan and version_compatible exclude each other")
        return self

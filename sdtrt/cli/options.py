"""Arguments and options that several commands have in common, with one help text each."""

from pathlib import Path
from typing import Annotated

import typer

Bundle = Annotated[Path, typer.Argument(help="Bundle folder, as written by sdtrt build.")]
Checkpoint = Annotated[str | None, typer.Option("--model", help="Hub id or folder of the checkpoint, if it has moved.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust", help="Run native code of a bundle that came from the hub.")]

# What a build is made of: `build` and `why`.
Recipe = Annotated[
    Path | None,
    typer.Option(help="YAML recipe, or the name of a shipped one (sdxl_inductor_fp8); options override it."),
]
Backend = Annotated[str | None, typer.Option(help="Backend of the engines; sdtrt doctor lists them.")]
Precision = Annotated[str | None, typer.Option(help="fp32, fp16, fp8 or int8.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", help='Shapes, as N or MIN:OPT:MAX: "B=1:1:4,H=256:512:768,W=512"; may be repeated.'),
]
Loras = Annotated[
    list[str] | None, typer.Option("--lora", help="LoRA to fuse, as FILE or FILE:SCALE; may be repeated.")
]
ControlNets = Annotated[
    list[str] | None, typer.Option("--controlnet", help="ControlNet, as a hub id or folder; may be repeated.")
]
Components = Annotated[list[str] | None, typer.Option("--component", help="Only this component; may be repeated.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub.")]
Variant = Annotated[str | None, typer.Option(help='Variant of the weight files, such as "fp16".')]

# How engine files are read: `analyze` and `compare`.
OnnxFiles = Annotated[
    list[str] | None, typer.Option("--onnx", help="ONNX file of the engine; for several engines, ENGINE=FILE for each.")
]
InputShapes = Annotated[str | None, typer.Option("--shapes", help='Shapes of inputs, such as "sample=2x4x64x64".')]
OptimizationProfile = Annotated[int, typer.Option("--profile", min=0, help="Optimization profile that was timed.")]

"""Build Stable Diffusion checkpoints into engines, run them as ordinary diffusers pipelines, see where time goes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdtrt.builder.add_profiles import add_profiles
    from sdtrt.builder.build import build
    from sdtrt.builder.rebuild_reasons import why
    from sdtrt.bundle.bundle import Bundle
    from sdtrt.bundle.hub import pull, push
    from sdtrt.pipelines.load import accelerate, load
    from sdtrt.pipelines.prompt_weighting import encode_prompt
    from sdtrt.verification.verify import verify

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "__version__",
    "accelerate",
    "add_profiles",
    "build",
    "encode_prompt",
    "load",
    "pull",
    "push",
    "verify",
    "why",
]

# Imported when first asked for: `import sdtrt` stays light and pulls in no torch. No module bears the name of a public
# function: importing it would put the module in the place of the function.
_HOMES = {
    "Bundle": "sdtrt.bundle.bundle",
    "accelerate": "sdtrt.pipelines.load",
    "add_profiles": "sdtrt.builder.add_profiles",
    "build": "sdtrt.builder.build",
    "encode_prompt": "sdtrt.pipelines.prompt_weighting",
    "load": "sdtrt.pipelines.load",
    "pull": "sdtrt.bundle.hub",
    "push": "sdtrt.bundle.hub",
    "verify": "sdtrt.verification.verify",
    "why": "sdtrt.builder.rebuild_reasons",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdtrt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

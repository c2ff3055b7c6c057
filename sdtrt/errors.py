"""Every error that sdtrt raises on purpose. Errors of other libraries are translated into these where they are called.

SdtrtError
├── ConfigError         a config file, profile or argument is wrong
├── ModelError          the checkpoint cannot be found, read or recognized
├── ShapeError          a size does not fit (also a ValueError, as diffusers raises)
├── Unsupported         an engine cannot do this (also a NotImplementedError)
├── ExportError         torch could not trace a component, or ONNX could not hold it
├── GraphError          a graph pass failed or broke what it promised
├── BackendUnavailable  the backend does not exist, or cannot run on this machine
├── BuildError          an engine could not be built
├── EngineError         an engine could not be loaded or failed while running
│   └── NonFiniteError  an engine gave NaN or Inf: the image would be black
├── BundleError         a bundle is missing, damaged, locked or of another format
├── PlanError           a plan.json cannot be read
└── VerifyError         an engine's result is too far from eager PyTorch

Each carries a `slug`, stable across versions, and names what was received, what was expected and the next step. A
fallback that the user chose is a `FallbackWarning`.
"""


class SdtrtError(Exception):
    """Base of all errors above; `slug` names the case, `hint` is the next step."""

    slug = "error"

    def __init__(
        self,
        message: str,
        *,
        slug: str | None = None,
        received: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.slug = slug or self.slug
        self.received = received
        self.expected = expected
        self.hint = hint
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [self.message]
        lines += [f"  received: {self.received}"] if self.received is not None else []
        lines += [f"  expected: {self.expected}"] if self.expected is not None else []
        lines += [f"  do: {self.hint}"] if self.hint else []
        return "\n".join(lines)


class ConfigError(SdtrtError):
    """A config file, profile or argument is wrong."""

    slug = "config"


class ModelError(SdtrtError):
    """The checkpoint cannot be found, read or recognized."""

    slug = "model"


class ShapeError(SdtrtError, ValueError):
    """A size is outside what was built, or not a multiple of what the model needs."""

    slug = "shape"


class Unsupported(SdtrtError, NotImplementedError):
    """An engine cannot do what was requested of diffusers' pipeline."""

    slug = "unsupported"


class ExportError(SdtrtError):
    """A component could not be traced or written as ONNX."""

    slug = "export"


class GraphError(SdtrtError):
    """A graph pass failed or broke what it promised."""

    slug = "graph"


class BackendUnavailable(SdtrtError):
    """The backend does not exist or cannot run here."""

    slug = "backend-unavailable"


class BuildError(SdtrtError):
    """An engine could not be built."""

    slug = "build"


class EngineError(SdtrtError):
    """An engine could not be loaded, or failed while running."""

    slug = "engine"


class NonFiniteError(EngineError):
    """An engine gave NaN or Inf in `component`, at denoising step `step`, from 1 on, and at `timestep`, where known."""

    slug = "engine-nonfinite"
    component: str
    step: int | None = None
    timestep: float | None = None


class NonFiniteWarning(UserWarning):
    """NonFiniteError as a warning, where the user chose that."""


class BundleError(SdtrtError):
    """A bundle is missing, damaged, locked, or of another format."""

    slug = "bundle"


class PlanError(SdtrtError):
    """A plan.json cannot be read."""

    slug = "plan"


class VerifyError(SdtrtError):
    """An engine's result is too far from eager PyTorch."""

    slug = "verify"


class FallbackWarning(UserWarning):
    """The checkpoint's own module runs in place of an engine, for a size that was not built."""

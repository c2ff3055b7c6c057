"""Disk and memory use of a bundle's engines by its manifest: a row per engine and profile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from sdtrt.bundle.manifest import Component, Manifest, ProfileMemory
from sdtrt.plan.layers import Plan


@dataclass(frozen=True)
class MemoryRow:
    """One profile of one engine; None is unknown.

    Activations are what the graph's tensors take at the profile's best and at its largest size, `context_bytes` is the
    block that the engine says it takes for them, `build_peak_bytes` the most that the building process had resident.
    """

    component: str
    profile: str | None = None
    file_bytes: int | None = None
    weight_bytes: int | None = None
    activation_opt_bytes: int | None = None
    activation_max_bytes: int | None = None
    context_bytes: int | None = None
    build_peak_bytes: int | None = None

    def figures(self) -> tuple[int | None, ...]:
        """All figures, in their order."""
        return tuple(getattr(self, field.name) for field in fields(self)[2:])


def memory(plans: Sequence[Plan], manifest: Manifest | None) -> tuple[MemoryRow, ...]:
    """Rows of all plans that the manifest has, without those of which nothing is known."""
    components = manifest.components if manifest else {}
    built = [(components[plan.component], plan) for plan in plans if plan.component in components]
    return tuple(row for pair in built for row in _rows(*pair) if set(row.figures()) != {None})


def _rows(component: Component, plan: Plan) -> Iterator[MemoryRow]:
    recorded = component.memory
    for profile in (recorded.profiles if recorded else ()) or (ProfileMemory(profile=""),):
        yield MemoryRow(
            component.name,
            profile.profile or None,
            sum(file.bytes for file in component.files.values()) if component.files else None,
            plan.total_weight_bytes,  # the manifest's are those of the checkpoint's part: for a VAE, of two engines
            profile.activation_opt_bytes,
            profile.activation_max_bytes,
            profile.context_bytes,
            recorded.build_peak_bytes if recorded else None,
        )

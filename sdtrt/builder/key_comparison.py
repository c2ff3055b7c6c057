"""The comparison of a component's key with that of the bundle: the reasons to build it, for dry runs and `why`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdtrt.bundle.bundle import Bundle
from sdtrt.errors import BundleError

NONE = "(none)"


@dataclass(frozen=True)
class Difference:
    """One field of a key that differs: as it was built, and as it would be built now."""

    field: str
    built: str
    now: str

    def __str__(self) -> str:
        return f"{self.field}: {self.built} -> {self.now}"


NEW = Difference("component", NONE, "new")


@dataclass(frozen=True)
class Reasons:
    """The reasons to build a component; `unknown` are fields that cannot be compared, with the cause."""

    component: str
    differs: tuple[Difference, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    damage: str | None = None

    @property
    def rebuild(self) -> bool | None:
        """Whether a build is needed; None when nothing is known to differ, but some fields are unknown."""
        if self.differs or self.damage:
            return True
        return None if self.unknown else False

    def texts(self) -> tuple[str, ...]:
        """The reasons to build, as a dry run shows them."""
        if self.differs == (NEW,):
            return ("it is new",)
        return (*([self.damage] if self.damage else []), *map(str, self.differs))


def differences(
    built: Mapping[str, str], now: Mapping[str, str], unknown: Mapping[str, str] | None = None
) -> tuple[Difference, ...]:
    """The fields in which two keys differ, except `unknown` ones."""
    fields = [f for f in dict.fromkeys([*built, *now]) if f not in (unknown or {}) and built.get(f) != now.get(f)]
    return tuple(Difference(f, built.get(f, NONE), now.get(f, NONE)) for f in fields)


def compare(
    bundle: Bundle | None, name: str, key: Mapping[str, str] | None, unknown: Mapping[str, str] | None = None
) -> Reasons:
    """Compare a component of a bundle with what a build would make.

    Args:
        bundle: the bundle, None where there is none.
        name: the component.
        key: the key that a build would give it; None when the build has no such component.
        unknown: fields of the key that are not known here, with the cause.
    """
    built = bundle.manifest.components.get(name) if bundle else None
    if bundle is None or built is None:
        return Reasons(name, (NEW,))
    if key is None:
        return Reasons(name, (Difference("component", "built", NONE),))
    causes = {f: cause for f, cause in (unknown or {}).items() if f in built.key or f in key}
    return Reasons(name, differences(built.key, key, causes), causes, _damage(bundle, name))


def _damage(bundle: Bundle, name: str) -> str | None:
    try:
        bundle.check_sizes(name)
    except BundleError as exc:
        return f"{exc.message}: {exc.received}, expected {exc.expected}"
    return None

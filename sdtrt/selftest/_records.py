"""The record of a self-test, to attach to an issue: JSON for tools, Markdown for people."""

from typing import Any, Literal

from sdtrt.system.json_records import Record

FORMAT_VERSION = 1
Status = Literal["running", "passed", "failed", "skipped"]


class Check(Record):
    """One check: its title, status, the reason of a failure or a skip, and its figures.

    "running" is only in the file of a self-test whose process crashed in this check.
    """

    name: str
    title: str
    backend: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = {}


class SelfTest(Record):
    """All checks, the environment, each backend's version and device, and why a backend is missing.

    `messages` are lines of TensorRT's log that no case of the error table matches.
    """

    format: int = FORMAT_VERSION
    sdtrt: str
    created: str
    environment: dict[str, Any]
    backends: dict[str, str] = {}
    missing: dict[str, str] = {}
    checks: tuple[Check, ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a check failed."""
        return any(c.status == "failed" for c in self.checks)

    def counts(self) -> dict[str, int]:
        """The number of checks by status."""
        return {s: n for s in ("passed", "failed", "skipped") if (n := sum(c.status == s for c in self.checks))}

    def to_markdown(self) -> str:
        """The record as the text of an issue."""
        packages = ", ".join(f"{n} {v}" for n, v in self.environment.get("packages", {}).items())
        gpus = ", ".join(f"{g['name']} (sm {g['sm']}, {g['driver']})" for g in self.environment.get("gpus", ()))
        lines = [
            f"# sdtrt {self.sdtrt} self-test",
            "",
            ", ".join(f"{n} {status}" for status, n in self.counts().items()) + f", {self.created}",
            "",
            f"- GPU: {gpus or 'none seen'}",
            f"- {self.environment.get('platform')}, Python {self.environment.get('python')}",
            f"- {packages}",
            *(f"- {name} {version}" for name, version in self.backends.items()),
            *(f"- {name} cannot run here: {why}" for name, why in self.missing.items()),
            "",
            "| backend | check | result | seconds | |",
            "| --- | --- | --- | ---: | --- |",
        ]
        lines += [
            f"| {c.backend} | {c.title} | {c.status} | {c.seconds:.1f} | {_cell(c.reason or _figures(c.figures))} |"
            for c in self.checks
        ]
        if self.messages:
            lines += ["", "Messages of TensorRT that sdtrt does not know:", "", "```", *self.messages, "```"]
        return "\n".join(lines) + "\n"


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{k} {f'{v:.3g}' if isinstance(v, float) else v}" for k, v in figures.items())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

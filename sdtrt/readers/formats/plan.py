"""sdtrt's own plan.json: what engines write and `Plan.save` makes."""

from collections.abc import Sequence

from sdtrt.plan.layers import Plan
from sdtrt.readers.documents import Document


def sniff(document: Document) -> bool:
    """Whether the file is a plan."""
    data = document.data
    return isinstance(data, dict) and {"format", "component", "layers"} <= set(data)


def read(documents: Sequence[Document], component: str, profile: int = 0) -> Plan:
    """The plan, as it was saved; its own component counts."""
    return Plan.load(documents[0].path)

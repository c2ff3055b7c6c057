"""TensorRT's inspector as text, turned into what it writes as JSON: for logs that hold the text only."""

from __future__ import annotations

import re
from typing import Any

_KEY = re.compile(r"(?:^|, )([A-Z][A-Za-z]*|Format/Datatype):(?: |$)")
_TENSOR = re.compile(r"\{ Name: (.+?), (?:Location: (\w+), )?Dimensions: \[([-\d,]*)\], Format/Datatype: (.+?) \}")


def layers(text: str) -> list[dict[str, Any]]:
    """Every layer between "Layers:" and the empty line after them."""
    block = text.partition("\nLayers:\n")[2].partition("\n\n")[0]
    return [_layer(line) for line in block.split("\n") if line.startswith("Name: ")]


def _layer(line: str) -> dict[str, Any]:
    # Tensors have keys of their own: they are taken out before the layer's keys are told apart.
    tensors = {
        key: re.search(rf"{key}: \[(.*?)\](?=, (?:Outputs|ParameterType|TacticName|TacticValue): )", line)
        for key in ("Inputs", "Outputs")
    }
    made: dict[str, Any] = {}
    rest = line
    for key, found in tensors.items():
        made[key] = [_tensor(m) for m in _TENSOR.finditer(found.group(1))] if found else []
        rest = rest.replace(f", {found.group(0)}", "") if found else rest
    parts = _KEY.split(rest)
    made |= {key: _value(text.strip()) for key, text in zip(parts[1::2], parts[2::2], strict=True)}
    return made


def _tensor(found: re.Match[str]) -> dict[str, Any]:
    name, location, dims, layout = found.groups()
    made = {"Name": name, "Dimensions": [int(d) for d in dims.split(",") if d], "Format/Datatype": layout}
    return made | ({"Location": location} if location else {})


def _value(text: str) -> Any:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"\[[-\d,]*\]", text):
        return [int(d) for d in text[1:-1].split(",") if d]
    sized = re.fullmatch(r'\{"Type": "(\w+)", "Count": (\d+)\}', text)
    return {"Type": sized.group(1), "Count": int(sized.group(2))} if sized else text

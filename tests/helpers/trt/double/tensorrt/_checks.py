"""What the builder says of a network, a config or a profile that it does not accept."""

from __future__ import annotations

from tensorrt._executor import Executor

_USAGE = "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error"
_INTERNAL = "IBuilder::buildSerializedNetwork: Error Code 4: Internal Error"
_TYPED = ("FP16", "BF16", "INT8", "FP8", "INT4", "FP4")
_POINTS = ("kMIN", "kOPT", "kMAX")


def problem(network, config) -> str | None:
    """The first thing that is wrong before anything is built."""
    if network._model is None or network.num_outputs == 0:
        return f"{_USAGE} (Network must have at least one output)"
    names = config._flag_names()
    typed = [name for name in _TYPED if name in names]
    if typed and network._typed():
        return (
            "Error Code 3: API Usage Error (Parameter check failed, condition: "
            f"!config.getFlag(BuilderFlag::k{typed[0]}).)"
        )
    if "WEIGHT_STREAMING" in names and not network._typed():
        return "Error Code 3: API Usage Error (kWEIGHT_STREAMING requires a strongly typed network.)"
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if any(-1 in value.shape for value in inputs) and not config._profiles:
        return f"{_USAGE} (Network has dynamic or shape inputs, but no optimization profile has been defined.)"
    found = (_profile(profile._ranges, inputs) for profile in config._profiles)
    return next(filter(None, found), None)


def _profile(ranges, inputs) -> str | None:
    for value in inputs:
        shapes = ranges.get(value.name)
        if shapes is None and -1 in value.shape:
            return f"{_INTERNAL} ({value.name}: optimization profile is missing values for shape input)"
        if shapes is not None and not all(_matches(value.shape, shape) for shape in shapes):
            return (
                f"{_INTERNAL} ({value.name}: the optimization profile does not match network definition (got "
                f"min={shapes[0]}, opt={shapes[1]}, max={shapes[2]}, expected {tuple(value.shape)}).)"
            )
    strange = sorted(ranges.keys() - {value.name for value in inputs})
    return f"{_USAGE} ({strange[0]}: the optimization profile names no network input)" if strange else None


def _matches(declared, shape) -> bool:
    return len(declared) == len(shape) and all(d in (-1, s) for d, s in zip(declared, shape, strict=True))


def contradiction(executor: Executor, profile, index: int) -> str | None:
    """Why the network cannot have the shapes of a profile, by inference."""
    for at, point in enumerate(_POINTS):
        shapes = {name: executor.static_shape(name) for name in executor.inputs}
        reason = executor.check(shapes | {name: ranges[at] for name, ranges in profile._ranges.items()})
        if reason is not None:
            return (
                f"{_INTERNAL} ({point} values for profile {index} violate shape constraints: broadcast with "
                f"incompatible dimensions. {reason})"
            )
    return None

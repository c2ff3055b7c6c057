"""The Python that Inductor writes around its kernels, read into launches: what is called with which tensors, in order.

Generated kernels (Triton's and C++'s) and library calls (`extern_kernels.mm`, `torch.ops...`) are launches. In front of
each stands a comment with the graph's nodes that it comes from. A buffer whose memory is reused, or whose shape is
another view of the same memory, has several names: a launch reads the name under which it was last written.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import dedent

from sdtrt.engines.backends.inductor.profiling import definitions
from sdtrt.engines.backends.inductor.profiling.definitions import Kernel
from sdtrt.errors import EngineError
from sdtrt.plan.layers import TensorInfo

_SOURCES = re.compile(r"^\s*# (?:Topologically Sorted|Unsorted) Source Nodes: \[(.*?)\], Original ATen: \[(.*?)\]")
_EXTERN = ("extern_kernels.", "torch.ops.", "aten.", "inductor_ops.")
_VIEWS = frozenset({"reinterpret_tensor", "torch.ops.aten.reshape.default"})
_RETYPED = "aten.view.dtype"  # a view of the same bits as another type


@dataclass(frozen=True)
class Launch:
    """One call. `native` is "triton", "cpp" or "extern"; `kernel` is the generated kernel's name on the device.

    `nodes` are names of the graph that was compiled, `aten` the operators that they became. `arguments` are those of
    its reads that the whole code was called with, and their positions there.
    """

    call: str
    kernel: str
    native: str
    nodes: tuple[str, ...]
    aten: tuple[str, ...]
    reads: tuple[TensorInfo, ...]
    writes: tuple[TensorInfo, ...]
    arguments: Mapping[str, int]


@dataclass(frozen=True)
class _Buffer:
    """What a variable stands for. `written` is the name under which its content was written, None before that.

    `memory` is the variable that its memory was allocated as.
    """

    name: str
    memory: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    written: str | None = None
    argument: int | None = None

    def info(self, name: str | None) -> TensorInfo:
        return TensorInfo(name=name or self.name, shape=self.shape, dtype=self.dtype)


def read(text: str) -> tuple[Launch, ...]:
    """All launches of the generated module `text`; EngineError when it has no function that is known to run them."""
    return tuple(_Reader(text).launches())


class _Reader:
    """Walks the statements of the function that runs the kernels, with the state of all variables."""

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        self._kernels = definitions.read(text)
        start = next((i for i, line in enumerate(lines) if re.match(r"\s*def call\(", line)), None)
        if start is None:
            raise EngineError(
                "the code that the compiler wrote cannot be read",
                slug="inductor-code",
                received=text[:100],
                expected="a module with a function `call`",
                hint="build with the tested versions of constraints.txt",
            )
        indent = len(lines[start]) - len(lines[start].lstrip())
        end = next(
            (i for i in range(start + 1, len(lines)) if lines[i].strip() and _indent(lines[i]) <= indent), len(lines)
        )
        self._lines = lines[start:end]
        self._tree = ast.parse(dedent("\n".join(self._lines)))
        self._buffers: dict[str, _Buffer] = {}
        self._parts: dict[str, list[TensorInfo]] = {}  # by memory: a concatenation is written in parts, then read whole
        self._last = 0  # line of the launch before

    def launches(self) -> Iterator[Launch]:
        waiting: Launch | None = None
        for statement in _statements(self._tree):
            if (found := self._statement(statement)) is not None:
                if waiting is not None:
                    yield self._settled(waiting)
                waiting = found
        if waiting is not None:
            yield self._settled(waiting)

    def _settled(self, launch: Launch) -> Launch:
        """What a library call returned is described by the assertions after it."""
        known = {b.name: b for b in self._buffers.values()}
        writes = tuple(t if t.shape or t.name not in known else known[t.name].info(t.name) for t in launch.writes)
        return replace(launch, writes=writes)

    def _statement(self, statement: ast.stmt) -> Launch | None:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            name = ast.unparse(statement.value.func)
            if name == "assert_size_stride":
                self._assert(statement.value)
                return None
            return self._launch(name, statement.value, None)
        if isinstance(statement, ast.Assign):
            return self._assign(statement.targets[0], statement.value)
        return None

    def _assign(self, target: ast.expr, value: ast.expr) -> Launch | None:
        if isinstance(target, ast.Tuple | ast.List):
            if ast.unparse(value) == "args":
                names = [ast.unparse(e) for e in target.elts]
                self._buffers |= {n: _Buffer(n, n, written=n, argument=i) for i, n in enumerate(names)}
            return None
        name = ast.unparse(target)
        if isinstance(value, ast.Call):
            function = ast.unparse(value.func)
            if function.startswith("empty_strided"):
                self._buffers[name] = _Buffer(name, name, ast.literal_eval(value.args[0]), _dtype(value.args[2]))
                return None
            if function not in _VIEWS:
                return self._launch(function, value, name)
        if (source := self._buffer(value)) is not None:
            self._buffers[name] = replace(source, name=name)
        return None

    def _launch(self, function: str, call: ast.Call, target: str | None) -> Launch | None:
        kernel = self._kernels.get(function.removesuffix(".run"))
        if kernel is None and not function.startswith(_EXTERN):
            return None
        given = [(self._parameter(kernel, i), self._buffer(a)) for i, a in enumerate(call.args)]
        given += [(k.arg or "", self._buffer(k.value)) for k in call.keywords]
        reads, writes = [], []
        arguments: dict[str, int] = {}
        for parameter, buffer in given:
            if buffer is None:
                continue
            into = parameter in (kernel.written if kernel else ("out",))
            if not into or parameter.startswith("in_out"):
                reads += self._content(buffer)
                if buffer.argument is not None:
                    arguments[buffer.name] = buffer.argument
            if into:
                writes.append(buffer.info(None))
                self._buffers[buffer.name] = replace(self._buffers[buffer.name], written=buffer.name, argument=None)
                self._parts.setdefault(buffer.memory, []).append(buffer.info(None))
        if target is not None:
            self._buffers[target] = _Buffer(target, target, written=target)
            writes.append(TensorInfo(name=target))
        nodes, aten = self._sources(call.lineno)
        device, native = (kernel.kernel, kernel.native) if kernel else (function, "extern")
        return Launch(function, device, native, nodes, aten, _once(reads), _once(writes), arguments)

    def _content(self, buffer: _Buffer) -> list[TensorInfo]:
        """What is in a buffer: what was written under its name, or the parts that make it up."""
        if buffer.written is None:
            return self._parts.get(buffer.memory, [])
        return [buffer.info(buffer.written)]

    def _parameter(self, kernel: Kernel | None, index: int) -> str:
        return kernel.parameters[index] if kernel and index < len(kernel.parameters) else ""

    def _buffer(self, value: ast.expr) -> _Buffer | None:
        """The buffer that an expression stands for: a variable, a view of one, one of several results."""
        if isinstance(value, ast.Name):
            return self._buffers.get(value.id)
        if isinstance(value, ast.Subscript) and (whole := self._buffer(value.value)) is not None:
            return replace(whole, shape=None)
        if not isinstance(value, ast.Call) or not value.args or (base := self._buffer(value.args[0])) is None:
            return None
        function = ast.unparse(value.func)
        if function == _RETYPED:
            return replace(base, dtype=_dtype(value.args[1]))
        return replace(base, shape=ast.literal_eval(value.args[1])) if function in _VIEWS else None

    def _assert(self, call: ast.Call) -> None:
        """Shapes of arguments and of what library calls returned, under all names that the content has."""
        found = self._buffer(call.args[0])
        if found is None or found.shape is not None:
            return
        shape = ast.literal_eval(call.args[1])
        for name, buffer in self._buffers.items():
            if buffer.written == found.written and buffer.shape is None:
                self._buffers[name] = replace(buffer, shape=shape)

    def _sources(self, line: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the comment between the launch before and this one names."""
        above = self._lines[self._last : line - 1]
        self._last = line
        for text in reversed(above):
            if match := _SOURCES.match(text):
                nodes, aten = (tuple(filter(None, group.split(", "))) for group in match.groups())
                return nodes, aten
        return (), ()


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """Statements in their order, those inside of `with` and the like too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            yield node
            yield from _statements(node)


def _once(tensors: list[TensorInfo]) -> tuple[TensorInfo, ...]:
    return tuple({t.name: t for t in tensors}.values())


def _dtype(value: ast.expr) -> str:
    return ast.unparse(value).removeprefix("torch.")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())

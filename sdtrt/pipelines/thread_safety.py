"""One pipeline object, many callers: a diffusers pipeline keeps the call that it runs on itself.

Its scheduler counts steps and keeps earlier predictions; guidance scale, clip skip and the wish to interrupt are
attributes; its tokenizers are switched between padding and none while they are in use. So the first call runs on the
object itself, exactly as diffusers has it, and one that comes meanwhile runs on a shallow copy with a scheduler of its
own: the engines are shared, and nothing waits but the encoding of prompts. A copy costs half a millisecond; a lock
around whole calls would leave cores idle and let a quick call wait for a slow one.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from sdtrt.engines import record_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

P = TypeVar("P", bound="DiffusionPipeline")

_lock = threading.Lock()
# Pipelines that a call runs on now, each with its scheduler and a copy of what that was before the call.
_in_use: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()
# Pipelines may share tokenizers, so one lock serves all.
_encoding = threading.RLock()


def thread_safe(pipe: P) -> P:
    """Let several threads call `pipe` at once, in place; its class becomes one of the same name below its own.

    Each call gets the result that it would have alone, if it has a generator of its own. Callbacks are handed the
    pipeline that their call runs on. Swapping parts and LoRA weights is for a time when no call runs.
    """
    stock: Any = type(pipe)
    if not hasattr(stock, "_stock"):
        pipe.__class__ = _class(stock)
    return pipe


@cache
def _class(stock: Any) -> Any:
    @wraps(stock.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _own(self) as run:
            try:
                return stock.__call__(run, *args, **kwargs)
            finally:
                record_pipeline(run)

    @wraps(stock.encode_prompt)
    def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _encoding:
            return stock.encode_prompt(self, *args, **kwargs)

    body = {"__call__": call, "encode_prompt": encode_prompt, "_stock": stock}
    body |= {name: getattr(stock, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(stock.__name__, (stock,), body)


@contextmanager
def _own(pipe: Any) -> Iterator[Any]:
    """The pipeline itself when no call runs on it, else a copy."""
    with _lock:
        used = _in_use.get(pipe)
        if used is None:
            _in_use[pipe] = (pipe.scheduler, _copied(pipe.scheduler))
    if used is not None:
        scheduler, before = used
        run = copy.copy(pipe)
        # Not by assignment, which would have diffusers register the part anew.
        vars(run)["scheduler"] = _copied(before if scheduler is pipe.scheduler else pipe.scheduler)
        yield run
        return
    try:
        yield pipe
    finally:
        with _lock:
            del _in_use[pipe]


def _copied(scheduler: Any) -> Any:
    try:
        return copy.deepcopy(scheduler)
    except TypeError:  # the noise sampler of its last call cannot be copied, and is not needed
        return type(scheduler).from_config(scheduler.config)

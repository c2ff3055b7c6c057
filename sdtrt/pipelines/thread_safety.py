"""Calls of one pipeline object by several threads: each gets the result that it would have alone.

A diffusers pipeline keeps the state of a call on itself: the scheduler's step index and earlier predictions, guidance
scale, clip skip and the interrupt flag; its tokenizers are switched between padding and none. So the first call runs
on the object itself, exactly as in diffusers, and a call that comes in while it runs gets a shallow copy with its own
scheduler. The engines are shared, and only the encoding of prompts waits. A copy takes half a millisecond; a lock
around whole calls would leave cores idle and let a quick call wait for a slow one.

Each call needs a generator of its own. Callbacks get the pipeline object that their call runs on. Components and LoRA
weights can be changed only while no call runs.
"""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

# Pipelines may share tokenizers, so one lock serves all.
ENCODING = threading.RLock()

_lock = threading.Lock()
# Pipelines on which a call runs now: the scheduler of that call, and a copy of it from before the call.
_in_use: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()


@contextmanager
def unshared(pipe: Any) -> Iterator[Any]:
    """Yield the pipeline itself when no call runs on it, else a copy."""
    with _lock:
        used = _in_use.get(pipe)
        if used is None:
            _in_use[pipe] = (pipe.scheduler, _copy_scheduler(pipe.scheduler))
    if used is not None:
        scheduler, before = used
        run = copy.copy(pipe)
        # Not by assignment: diffusers would register the component again.
        vars(run)["scheduler"] = _copy_scheduler(before if scheduler is pipe.scheduler else pipe.scheduler)
        yield run
        return
    try:
        yield pipe
    finally:
        with _lock:
            del _in_use[pipe]


def _copy_scheduler(scheduler: Any) -> Any:
    try:
        return copy.deepcopy(scheduler)
    except TypeError:  # the noise sampler of its last call cannot be copied, and is not needed
        return type(scheduler).from_config(scheduler.config)

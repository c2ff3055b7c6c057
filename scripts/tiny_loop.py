"""A resumable training loop: AdamW with warm-up and cosine, moving averages, CUDA graphs, safetensors checkpoints."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Batch = dict[str, torch.Tensor]
REPORT_EVERY_STEPS = 50
# The steps between which a step's time is measured: after the capture, before the end of the warm-up.
TIMED_STEPS = (20, 60)
EAGER_STEPS = 4
AVERAGE_EVERY_STEPS = 10
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to train one stage; steps of 0 stand for as many as fit into `minutes`."""

    steps: int
    minutes: float
    learning_rate: float
    warmup_steps: int = 200
    weight_decay: float = 0.01
    average_decay: float = 0.99  # for each AVERAGE_EVERY_STEPS
    largest_gradient: float = 1.0
    save_every_s: float = 120.0
    graphs: bool = True


def generator_for(device: torch.device, *key: int) -> torch.Generator:
    """Make a generator whose numbers depend on the key alone, so that no random state needs saving."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**61 - 1)
    return torch.Generator(device).manual_seed(seed)


class Trainer:
    """Trains modules together on one loss.

    Args:
        name: Of the stage; names the checkpoint's files.
        modules: By name, on their device.
        loss: From the inputs of a step to a scalar.
        make_batch: From a step's number to its inputs, always of the same shapes.
        plan: How long and how fast.
        state: Folder of the checkpoint.
    """

    def __init__(
        self,
        name: str,
        modules: dict[str, nn.Module],
        loss: Callable[[Batch], torch.Tensor],
        make_batch: Callable[[int], Batch],
        plan: Plan,
        state: Path,
    ) -> None:
        self.name, self.modules, self.plan, self.state = name, modules, plan, state
        self._loss, self._make_batch = loss, make_batch
        named = {f"{key}.{n}": p for key, module in modules.items() for n, p in module.named_parameters()}
        self.names, self.parameters = list(named), list(named.values())
        self.device = self.parameters[0].device
        self.averages = [p.detach().clone() for p in self.parameters]
        self.rate = torch.tensor(0.0, device=self.device)
        cuda = self.device.type == "cuda"
        self.graphs = plan.graphs and cuda
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.rate,
            betas=(0.9, 0.99),
            weight_decay=plan.weight_decay,
            fused=cuda,
            capturable=cuda,
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._inputs: Batch = {}
        self._loss_sum = torch.zeros((), device=self.device)
        self.step, self.total, self.trained_s = 0, plan.steps, 0.0
        self.history: list[tuple[int, float]] = []
        self._load()

    # ------------------------------------------------------------------ one step

    def _update(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        # Without the cache: a cast weight kept from one step would be stale in a replayed graph.
        with torch.autocast(self.device.type, torch.bfloat16, self.device.type == "cuda", cache_enabled=False):
            loss = self._loss(self._inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.plan.largest_gradient)
        self.optimizer.step()
        self._loss_sum.add_(loss.detach())

    def _warm(self) -> None:
        # Capture wants what ran before it, lazily made workspaces included, off the default stream.
        stream = self._stream = self._stream or torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._update()
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._update()
            self._graph = graph
            console.print(f"{self.name}: the step runs as a CUDA graph")
        except RuntimeError as error:
            self.graphs = False
            console.print(f"{self.name}: no CUDA graph ({str(error).splitlines()[0]}), going on without")

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.plan.warmup_steps)
        done = self.step / self.total if self.total else 0.0
        return self.plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _one_step(self, since_start: int) -> None:
        batch = self._make_batch(self.step)
        if not self._inputs:
            self._inputs = {key: value.clone() for key, value in batch.items()}
        for key, value in batch.items():
            self._inputs[key].copy_(value)
        self.rate.fill_(self._learning_rate())
        if self.graphs and since_start == EAGER_STEPS:
            self._capture()
        if self._graph is not None:
            self._graph.replay()
        elif self.graphs:
            self._warm()
        else:
            self._update()
        self.step += 1
        if self.step % AVERAGE_EVERY_STEPS == 0 or self.step == self.total:
            # Outside the graph, where the decay is a constant: the first averages must not cling to the start.
            count = self.step // AVERAGE_EVERY_STEPS
            decay = min(self.plan.average_decay, (1 + count) / (10 + count))
            get_ema_multi_avg_fn(decay)(self.averages, self.parameters, count)

    # ------------------------------------------------------------------ the loop

    def run(self, deadline_s: float) -> bool:
        """Train on to the end, or to the deadline.

        Args:
            deadline_s: On the clock of `time.monotonic`; training stops there with a checkpoint.

        Returns:
            Whether the stage is finished.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        start_s = saved_s = time.monotonic()
        earlier_s, first, timed_s, loss_since = self.trained_s, self.step, 0.0, self.step
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task(self.name, total=self.total or None, completed=self.step)
            while not self.total or self.step < self.total:
                self._one_step(self.step - first)
                if not self.total and self.step in TIMED_STEPS:
                    timed_s = self._time_steps(timed_s, start_s - earlier_s)
                if self.step % REPORT_EVERY_STEPS and self.step != self.total:
                    continue
                loss = float(self._loss_sum) / (self.step - loss_since)
                self._loss_sum.zero_()
                loss_since = self.step
                self.history.append((self.step, loss))
                now_s = time.monotonic()
                self.trained_s = earlier_s + now_s - start_s
                rate = (self.step - first) / (now_s - start_s)
                bar.update(task, completed=self.step, total=self.total or None, description=f"{self.name} {loss:.4f}")
                if not console.is_terminal and (len(self.history) % 10 == 1 or self.step == self.total):
                    line = f"{self.name} step {self.step}/{self.total or '?'} loss {loss:.5f} {rate:.1f} steps/s"
                    console.print(f"{line} {self.trained_s:.0f} s")
                if not math.isfinite(loss):
                    raise FloatingPointError(f"{self.name}: the loss is {loss} at step {self.step}")
                if now_s > deadline_s:
                    break
                if now_s - saved_s > self.plan.save_every_s:
                    self.save()
                    saved_s = time.monotonic()
        self.save()
        return self.step == self.total

    def _time_steps(self, before_s: float, start_s: float) -> float:
        """Measure at the two timed steps how long a step takes, and set the stage's steps from it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now_s = time.monotonic()
        if self.step == TIMED_STEPS[1]:
            step_s = (now_s - before_s) / (TIMED_STEPS[1] - TIMED_STEPS[0])
            left_s = max(0.0, 60 * self.plan.minutes - (now_s - start_s))
            self.total = self.step + max(self.plan.warmup_steps, int(left_s / step_s))
            console.print(f"{self.name}: {1e3 * step_s:.1f} ms a step, so {self.total} steps (repeat with that number)")
        return now_s

    def use_averages(self) -> None:
        """Put the moving averages into the modules, for good: training is over."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                parameter.copy_(average)

    # ------------------------------------------------------------------ the checkpoint

    def save(self) -> None:
        """Write everything that the next step depends on: tensors as safetensors, numbers as JSON."""
        if not self.total:
            # Not even the steps were settled: a run cut off this early starts over.
            return
        self.state.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter, average in zip(self.names, self.parameters, self.averages, strict=True):
            tensors[f"value/{name}"], tensors[f"average/{name}"] = parameter.detach(), average
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
        numbers = {"step": self.step, "total": self.total, "trained_s": self.trained_s, "history": self.history}
        # Both in one file, swapped in at once: a run that is cut off leaves the last whole checkpoint.
        fresh = self.state / f"{self.name}.partial"
        save_file({key: t.cpu().contiguous() for key, t in tensors.items()}, fresh, {"numbers": json.dumps(numbers)})
        fresh.replace(self._file)

    @property
    def _file(self) -> Path:
        return self.state / f"{self.name}.safetensors"

    def _load(self) -> None:
        if not self._file.is_file():
            return
        with safe_open(self._file, framework="pt", device=str(self.device)) as stored, torch.no_grad():
            keys = set(stored.keys())
            for name, parameter, average in zip(self.names, self.parameters, self.averages, strict=True):
                parameter.copy_(stored.get_tensor(f"value/{name}"))
                average.copy_(stored.get_tensor(f"average/{name}"))
                for key in ("exp_avg", "exp_avg_sq"):
                    if f"{key}/{name}" in keys:
                        # The fused update wants the moments in the parameter's own memory layout.
                        moment = torch.zeros_like(parameter).copy_(stored.get_tensor(f"{key}/{name}"))
                        self.optimizer.state[parameter][key] = moment
                        self.optimizer.state[parameter]["step"] = stored.get_tensor(f"step/{name}")
            numbers = json.loads(stored.metadata()["numbers"])
        self.step, self.total, self.trained_s = numbers["step"], numbers["total"], numbers["trained_s"]
        self.history = [(int(step), float(loss)) for step, loss in numbers["history"]]
        console.print(f"{self.name}: resumed at step {self.step} of {self.total}")

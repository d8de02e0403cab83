"""Training steps on a CUDA device that are recorded once and then replayed as CUDA graphs.

A step of a small model launches over a thousand kernels of a few microseconds each, and Python
takes longer to launch a kernel than the card takes to run it. A recording is launched at once. It
reads and writes fixed addresses, so gradients, weights and inputs stay where they are, and there is
one for each shape of batch: `model.batches.padded_width` keeps shapes few.

Kernels and their random numbers are those of the plain step, so losses are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from model.config import TrainConfig
from model.devices import UsedPrecision
from model.half_weights import HalfWeights, Weights
from model.optimization import clip_gradients

RECORDED_TYPES = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "deberta-v2",
        "distilbert",
        "electra",
        "modernbert",
        "roberta",
        "xlm-roberta",
    }
)
"""Model types whose passes neither ask the card for anything on their way nor send it anything, as
a recording must not. MPNet failed the one time it was tried, when padding with an id that its
table lacked was still possible; it has to be tried again."""

SHAPES = 32
"""Recordings of passes that are kept; batches of further shapes run as they come."""


def can_record(network: PreTrainedModel, device: torch.device) -> bool:
    return device.type == "cuda" and network.config.model_type in RECORDED_TYPES


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """How the steps of one training are recorded."""

    rows: int
    """Of the batches whose passes are."""
    halves: HalfWeights | None
    """What the passes read instead of the network's own weights; None in fp32."""


def recording_of(
    network: PreTrainedModel, config: TrainConfig, device: torch.device, precision: UsedPrecision
) -> Recording | None:
    """None where steps are not recorded."""
    if not can_record(network, device):
        return None
    halves = None
    if precision == "bf16":
        halves = HalfWeights(network, add=config.gradient_accumulation > 1)
    return Recording(config.batch_size, halves)


class Forward(Protocol):
    def __call__(self, batch: torch.Tensor, weights: Weights | None = None) -> torch.Tensor:
        """[rows, outputs] from [3, rows, width] int64 on the device, with the ``weights`` instead
        of the network's own of these names."""
        ...


class RecordedPasses:
    """Forward and backward passes.

    A shape is recorded when it comes for the second time: the first time it runs as it is, and so
    all that kernels set up when they first run, and the gradients that they write to, is there.
    """

    def __init__(self, forward: Forward, recording: Recording, device: torch.device) -> None:
        self._forward = forward
        self._rows = recording.rows
        self._halves = recording.halves
        self._recordings: dict[torch.Size, _Passes | None] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._device = device

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """[rows, outputs] with gradients, for ``inputs`` in pinned memory."""
        recording = self._recording(inputs)
        if recording is None:
            return self._forward(inputs.to(self._device, non_blocking=True))
        recording.inputs.copy_(inputs, non_blocking=True)
        replayed: torch.Tensor = _Replay.apply(self._anchor, recording)  # type: ignore[no-untyped-call]
        return replayed

    def _recording(self, inputs: torch.Tensor) -> "_Passes | None":
        shape = inputs.shape
        if shape[1] != self._rows:
            return None
        if shape not in self._recordings:
            if len(self._recordings) < SHAPES:
                self._recordings[shape] = None
            return None
        found = self._recordings[shape]
        if found is None:
            try:
                found = _Passes(
                    self._forward, self._halves, inputs.to(self._device), self._pool, self._stream
                )
            except torch.OutOfMemoryError:
                self._give_up()
                raise
            self._recordings[shape] = found
        return found

    def _give_up(self) -> None:
        """Recordings hold their memory, which is now needed for plain passes in smaller parts."""
        self._recordings.clear()
        self._rows = 0


class RecordedUpdate:
    """What follows the gradients of a step: clipping, the optimizer, and clearing them."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        recording: Recording | None,
    ) -> None:
        self._network = network
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._record = recording is not None
        self._halves = recording.halves if recording else None
        self._made = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif self._record and self._made:
            self._graph = torch.cuda.CUDAGraph()
            with _recording(self._graph, torch.cuda.graph_pool_handle(), torch.cuda.Stream()):
                self._update()
            self._graph.replay()
        else:
            self._update()
            self._made = True

    def clear(self) -> None:
        """Forget the gradients. Recorded ones stay in their place, and are zero."""
        self._optimizer.zero_grad(set_to_none=not self._record)

    def _update(self) -> None:
        clip_gradients(self._network.parameters(), self._max_grad_norm)
        self._optimizer.step()
        self.clear()
        if self._halves is not None:
            self._halves.refresh()


class _Passes:
    """One shape's recordings. Their activations share a pool with other shapes': a backward pass
    always follows its own forward pass."""

    def __init__(
        self,
        forward: Forward,
        halves: HalfWeights | None,
        inputs: torch.Tensor,
        pool: Any,
        stream: torch.cuda.Stream,
    ) -> None:
        self.inputs = inputs
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with _recording(self._forward, pool, stream):
            logits = forward(inputs, halves.values if halves else None)
        self._gradient = torch.empty_like(logits)
        with _recording(self._backward, pool, stream):
            logits.backward(self._gradient)
            if halves is not None:
                halves.hand_over_gradients()
        self._logits = logits.detach()

    def forward(self) -> torch.Tensor:
        self._forward.replay()
        return self._logits.detach()

    def backward(self, gradient: torch.Tensor) -> None:
        """Leaves the gradients with the weights: added to theirs, but for those of
        `HalfWeights`, which follow its ``add``."""
        self._gradient.copy_(gradient)
        self._backward.replay()


class _Replay(torch.autograd.Function):
    """Puts recorded passes into a graph of autograd, by an anchor that wants a gradient."""

    @staticmethod
    def forward(ctx: Any, _: torch.Tensor, passes: _Passes) -> torch.Tensor:
        ctx.passes = passes
        return passes.forward()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None]:
        ctx.passes.backward(gradients[0])
        return None, None


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    """`torch.cuda.graph` would also empty the allocator's cache, each time anew."""
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # Other threads of a trainer do not launch anything that matters to a recording.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()

"""BERT's forward pass over real tokens only, and in its last layer over the first token only.

Transformers runs every layer over padded rows and every row to its end. Here the tokens of a batch
stand in one array without padding; only attention looks at them row by row. Unless it pools them
all, the classifier reads nothing but the first token of a row, so the last layer asks for nothing
else: its other tokens give keys and values, and that is all that the loss depends on. Losses and
gradients are the same up to rounding, from the network's own modules and weights.

In bf16 a few tokens of no row fill a batch up to one of few sizes. Nobody reads them, so no
gradient comes from them either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import BertForSequenceClassification, PreTrainedModel

from model.batches import Positions, to_device
from model.devices import UsedPrecision, autocast
from model.dropout import dropout
from model.pooling import own_pooling
from model.tokens import Sequences


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Tensors on the training device; N tokens in rows of at most W, H attention heads. T is N, or
    more where filler stands behind them."""

    input_ids: torch.Tensor
    """[1, T] int64; the rows one behind the other, then filler."""
    token_type_ids: torch.Tensor
    """[1, T] int64."""
    position_ids: torch.Tensor
    """[1, T] int64; places within the rows."""
    first: torch.Tensor
    """[rows] int64; where each row begins."""
    lengths: torch.Tensor
    """[rows] int64; tokens of each row."""
    spread: torch.Tensor
    """[rows · H · W] int64; the (token, head) of each place, 0 where a row is over."""
    gathered: torch.Tensor
    """[N · H] int64; the place of each (token, head)."""
    bias: torch.Tensor
    """[rows · H, 1, W] fp32; 0 where there is a token, else minus infinity."""


def exact_size(tokens: int) -> int:
    """No filler."""
    return tokens


def few_sizes(tokens: int) -> int:
    """The next of few sizes: multiples of 32 up to 1,024, then sixteen from each power of two to
    the next, so that filler is about a fiftieth of a batch of a thousand tokens.

    oneDNN, which multiplies in bf16, compiles a kernel for every shape that it has not met: about
    4 ms each and nine for every number of tokens, which took a sixth of a MiniLM step of 16 rows.
    """
    step = 1 << max(5, tokens.bit_length() - 5)
    return -(-tokens // step) * step


def pack(
    sequences: Sequences,
    positions: Positions,
    *,
    heads: int,
    device: torch.device,
    size: Callable[[int], int] = exact_size,
) -> PackedBatch:
    """Gather rows of the flat arrays into one batch on ``device``; ``size`` makes the number of
    tokens with filler of the number without."""
    lengths = sequences.lengths[positions]
    ends = np.cumsum(lengths)
    first = ends - lengths
    width = int(lengths.max())
    place = np.arange(ends[-1]) - np.repeat(first, lengths)
    source = place + np.repeat(sequences.offsets[positions], lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    tokens, head = np.arange(ends[-1])[:, None], np.arange(heads)[None, :]
    gathered = ((row[:, None] * heads + head) * width + place[:, None]).ravel()
    spread = np.zeros(len(lengths) * heads * width, dtype=np.int64)
    spread[gathered] = (tokens * heads + head).ravel()
    over = np.arange(width)[None, :] >= lengths[:, None]
    bias = np.where(over, np.float32(-np.inf), np.float32(0))

    # The first token over and over: the filler must be words of the data, and may be any.
    filler = size(len(source)) - len(source)
    source = np.append(source, source[:1].repeat(filler))
    place = np.append(place, np.zeros(filler, np.int64))

    def put(array: npt.NDArray[Any]) -> torch.Tensor:
        return to_device(array, device)

    return PackedBatch(
        input_ids=put(sequences.ids[source].astype(np.int64)[None]),
        token_type_ids=put(sequences.type_ids[source].astype(np.int64)[None]),
        position_ids=put(place[None]),
        first=put(first),
        lengths=put(lengths),
        spread=put(spread),
        gathered=put(gathered),
        bias=put(np.repeat(bias, heads, axis=0)[:, None]),
    )


class PackedBert:
    """Runs a network that `can_pack` allows on packed batches."""

    def __init__(
        self, network: PreTrainedModel, device: torch.device, precision: UsedPrecision
    ) -> None:
        self._network: Any = network
        self._device = device
        self._precision = precision
        self._heads: int = network.config.num_attention_heads
        self._pooling = own_pooling(network.config)
        self._size = few_sizes if precision == "bf16" else exact_size

    def logits(self, sequences: Sequences, positions: Positions) -> torch.Tensor:
        """[rows, labels], in the precision of the matrix products."""
        batch = pack(sequences, positions, heads=self._heads, device=self._device, size=self._size)
        bert: Any = self._network.bert
        with autocast(self._device, self._precision):
            hidden = bert.embeddings(batch.input_ids, batch.token_type_ids, batch.position_ids)[0]
            *layers, last = bert.encoder.layer
            for layer in layers:
                hidden = self._run(layer, hidden, hidden, batch)
            if self._pooling is None:
                read = self._run(last, hidden[batch.first], hidden, batch)
            else:
                hidden = self._run(last, hidden, hidden, batch)
                tokens = hidden[: len(batch.gathered) // self._heads]
                read = torch.segment_reduce(tokens, self._pooling, lengths=batch.lengths)
            pooled = bert.pooler(read[:, None])
            logits: torch.Tensor = self._network.classifier(self._network.dropout(pooled))
        return logits

    def _run(
        self, layer: Any, asking: torch.Tensor, hidden: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        """[asking, hidden size]: one layer for the rows of ``asking``."""
        mixed = self._attend(layer.attention.self, asking, hidden, batch)
        return _after_attention(layer, mixed, asking)

    def _attend(
        self, attention: Any, asking: torch.Tensor, hidden: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        """[asking, hidden size]: self-attention of the rows of ``asking``, all tokens or the first
        of every row, over the tokens of their own row."""
        inputs = hidden.to(torch.bfloat16) if self._precision == "bf16" else hidden
        keys = self._by_row(attention.key(inputs), batch)
        values = self._by_row(attention.value(inputs), batch)
        if asking is hidden:
            queries = self._by_row(attention.query(inputs), batch)
        else:
            queries = attention.query(asking).view(len(keys), 1, -1)
        probability = attention.dropout.p if attention.training else 0.0
        with torch.autocast(self._device.type, enabled=False):
            mixed = _mix(queries, keys, values, batch.bias, probability)
        if asking is not hidden:
            return mixed.reshape(asking.shape)
        flat = mixed.reshape(-1, mixed.shape[-1])
        count = len(hidden) * self._heads
        gathered: torch.Tensor = _Gather.apply(flat, batch.gathered, count)  # type: ignore[no-untyped-call]
        return gathered.view(hidden.shape)

    def _by_row(self, values: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """[T, hidden size] to [rows · H, W, hidden size / H]. What stands where a row is over does
        not matter: no one attends to it, and no gradient comes from there."""
        flat = values.view(len(values) * self._heads, -1)
        spread: torch.Tensor = _Spread.apply(flat, batch.spread, batch.gathered)  # type: ignore[no-untyped-call]
        return spread.view(len(batch.bias), batch.bias.shape[-1], -1)


def can_pack(network: PreTrainedModel, device: torch.device) -> bool:
    """Whether the network is a plain BERT encoder with a classifier on its first token, and is to
    run on a CPU: on a GPU, where fused kernels do better, nothing of this was measured."""
    config = network.config
    return (
        device.type == "cpu"
        and type(network) is BertForSequenceClassification
        and not config.is_decoder
        and not config.chunk_size_feed_forward
        and config.num_hidden_layers > 0
    )


def _after_attention(layer: Any, mixed: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The rest of a layer, which looks at each token alone and so takes any shape."""
    attended = layer.attention.output(mixed, hidden)
    output: torch.Tensor = layer.output(layer.intermediate(attended), attended)
    return output


def _mix(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor,
    probability: float,
) -> torch.Tensor:
    """Attention in plain products: for short rows on a CPU they beat torch's fused kernel, which
    has no dropout there and without it made a MiniLM step of 30-token rows a fifth slower."""
    scale = queries.shape[-1] ** -0.5
    scores = torch.baddbmm(bias.to(keys.dtype), queries, keys.transpose(1, 2), alpha=scale)
    # In halves torch's softmax takes several times as long where a row is no multiple of 32.
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
    weights = dropout(shares, probability, training=True)
    return torch.bmm(weights, values)


class _Spread(torch.autograd.Function):
    """Copies tokens to their places; every token has one place, so its gradient is found there."""

    @staticmethod
    def forward(
        ctx: Any, tokens: torch.Tensor, spread: torch.Tensor, gathered: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(gathered)
        ctx.count = len(tokens)
        return tokens.index_select(0, spread)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gathered,) = ctx.saved_tensors
        return _select(gradients[0], gathered, ctx.count), None, None


class _Gather(torch.autograd.Function):
    """Copies tokens back from their places; no gradient goes to places without a token."""

    @staticmethod
    def forward(ctx: Any, places: torch.Tensor, gathered: torch.Tensor, count: int) -> torch.Tensor:
        ctx.save_for_backward(gathered)
        ctx.places = len(places)
        return _select(places, gathered, count)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gathered,) = ctx.saved_tensors
        empty = gradients[0].new_zeros(ctx.places, gradients[0].shape[1])
        tokens = gradients[0][: len(gathered)]
        return empty.index_copy_(0, gathered, tokens), None, None


def _select(places: torch.Tensor, gathered: torch.Tensor, count: int) -> torch.Tensor:
    """[count, columns]: the rows of ``places`` that ``gathered`` names, then zeros."""
    rows = places.new_empty(count, places.shape[1])
    torch.index_select(places, 0, gathered, out=rows[: len(gathered)])
    rows[len(gathered) :].zero_()
    return rows

"""The packed forward pass gives what Transformers' own gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.classifier import Classifier
from model.config import Pooling
from model.network import Head, build_network, load_base
from model.packed import PackedBert, can_pack, exact_size, few_sizes, pack
from model.tokens import Sequences, TypeIds

CPU = torch.device("cpu")
LENGTHS = (3, 7, 1, 5)


@pytest.fixture
def sequences() -> Sequences:
    """Rows of 3, 7, 1 and 5 tokens; the second half of the longer ones is a second text."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(LENGTHS, dtype=np.int64)])
    ids = np.arange(5, 5 + offsets[-1], dtype=np.int32)
    type_ids: TypeIds = np.concatenate(
        [np.arange(length) * 2 // max(length, 4) for length in LENGTHS]
    ).astype(np.uint8)
    return Sequences(ids, type_ids, offsets, truncated_rows=0, lost_tokens=0)


@pytest.mark.parametrize("size", [exact_size, few_sizes], ids=["as_it_is", "filled"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("rows", [(0, 1, 2, 3), (1,), (3, 2)])
def test_logits_and_gradients_are_those_of_the_padded_pass(
    model_folder: Callable[[str], Path],
    sequences: Sequences,
    rows: tuple[int, ...],
    pooling: Pooling,
    size: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = build_network(
        load_base(model_folder("bert")),
        Head(("no", "yes")),
        device=CPU,
        dropout=0.0,
        pooling=pooling,
    ).train()
    classifier = Classifier(network, 40, CPU, "fp32")
    assert classifier._packed is not None
    monkeypatch.setattr(classifier._packed, "_size", size)
    positions = np.array(rows)
    weights = torch.arange(2.0 * len(rows)).view(len(rows), 2)

    def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        network.zero_grad()
        logits = classifier.logits(sequences, positions)
        (logits * weights).sum().backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        return logits.detach(), gradients

    packed, packed_gradients = run()
    classifier._packed = None
    padded, padded_gradients = run()
    torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-5)
    assert packed_gradients.keys() == padded_gradients.keys()
    for name, gradient in padded_gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-5, rtol=1e-4)


def test_a_batch_holds_real_tokens_only(sequences: Sequences) -> None:
    batch = pack(sequences, np.array([2, 0]), heads=1, device=CPU)
    assert batch.input_ids.tolist() == [[15, 5, 6, 7]]  # the row of one token, then that of three
    assert batch.position_ids.tolist() == [[0, 0, 1, 2]]
    assert batch.first.tolist() == [0, 1]
    assert batch.gathered.tolist() == [0, 3, 4, 5]  # places of a 2 × 3 table
    assert (batch.bias == 0).squeeze(1).tolist() == [[True, False, False], [True, True, True]]


def test_filler_stands_behind_a_batch_and_belongs_to_no_row(sequences: Sequences) -> None:
    plain, filled = (
        pack(sequences, np.array([2, 0]), heads=1, device=CPU, size=size)
        for size in (exact_size, few_sizes)
    )
    assert filled.input_ids.shape == filled.token_type_ids.shape == (1, 32)
    assert filled.input_ids[0, :4].tolist() == plain.input_ids[0].tolist()
    assert set(filled.input_ids[0, 4:].tolist()) == {15}  # a word of the batch
    assert filled.position_ids.tolist() == [[0, 0, 1, 2, *[0] * 28]]
    for field in ("first", "lengths", "spread", "gathered", "bias"):
        assert torch.equal(getattr(filled, field), getattr(plain, field))


def test_sizes_are_few_and_near() -> None:
    sizes = [few_sizes(tokens) for tokens in range(1, 1 << 14)]
    assert all(
        size >= tokens and size % 32 == 0 and size - tokens < max(32, tokens / 15)
        for tokens, size in enumerate(sizes, start=1)
    )
    assert len(set(sizes)) == 32 + 4 * 16
    assert [few_sizes(size) for size in sizes] == sizes


def test_only_bf16_is_filled(model_folder: Callable[[str], Path]) -> None:
    base, head = load_base(model_folder("bert")), Head(("no", "yes"))
    network = build_network(base, head, device=CPU, dropout=None)
    assert PackedBert(network, CPU, "bf16")._size is few_sizes
    assert PackedBert(network, CPU, "fp32")._size is exact_size


@pytest.mark.parametrize("model_type", ["distilbert", "electra", "modernbert"])
def test_other_architectures_run_as_transformers_has_them(
    model_folder: Callable[[str], Path], model_type: str
) -> None:
    base = load_base(model_folder(model_type))
    assert not can_pack(build_network(base, Head(("no", "yes")), device=CPU, dropout=None), CPU)

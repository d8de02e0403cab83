"""A network on its device together with how it is fed: rows in, logits out."""

import inspect
from typing import Any

import torch
from torch.func import functional_call
from transformers import PreTrainedModel

from model.batches import Positions, collate
from model.devices import UsedPrecision, autocast
from model.half_weights import Weights
from model.packed import PackedBert, can_pack
from model.recorded_steps import RecordedPasses, Recording
from model.tokens import Sequences
from model.windows import Windows


class Classifier:
    """The same for training and evaluation; which of them is the network's own mode."""

    def __init__(
        self,
        network: PreTrainedModel,
        max_positions: int,
        device: torch.device,
        precision: UsedPrecision,
        *,
        recording: Recording | None = None,
    ) -> None:
        """``recording`` says how the passes of a training are recorded, if they are."""
        self.network = network
        self.device = device
        self._max_positions = max_positions
        # RoBERTa counts positions by the configuration's padding id, so that one is taken.
        self._pad_id = int(getattr(network.config, "pad_token_id", None) or 0)
        self._forward = _Padded(network, device, precision)
        self._packed = PackedBert(network, device, precision) if can_pack(network, device) else None
        self._recorded: RecordedPasses | None = None
        if recording is not None:
            self._recorded = RecordedPasses(self._forward, recording, device)

    def logits(self, sequences: Sequences | Windows, positions: Positions) -> torch.Tensor:
        """[texts, labels], fp32 whatever the autocast, for the texts at ``positions``."""
        return self._pooled(sequences, positions)

    def _pooled(self, sequences: Sequences | Windows, positions: Positions) -> torch.Tensor:
        if isinstance(sequences, Windows):
            rows = self._pooled(sequences.rows, sequences.of(positions))
            counts = torch.from_numpy(sequences.counts(positions)).to(rows.device)
            return torch.segment_reduce(rows, sequences.pooling, lengths=counts)
        return self._of_rows(sequences, positions)

    def _of_rows(self, sequences: Sequences, positions: Positions) -> torch.Tensor:
        if self._packed is not None:
            return self._packed.logits(sequences, positions).float()
        batch = collate(
            sequences,
            positions,
            pad_id=self._pad_id,
            max_width=self._max_positions,
            device=self.device,
        )
        if self._recorded is not None and torch.is_grad_enabled():
            return self._recorded.logits(batch)
        return self._forward(batch.to(self.device, non_blocking=True))


class _Padded:
    """The network over padded batches on its device. Whoever records its passes holds this and not
    the classifier, so that nothing waits for the garbage collector to give memory back."""

    def __init__(
        self, network: PreTrainedModel, device: torch.device, precision: UsedPrecision
    ) -> None:
        self._network = network
        self._device = device
        self._precision = precision
        self._reads_type_ids = _reads_type_ids(network)

    def __call__(self, batch: torch.Tensor, weights: Weights | None = None) -> torch.Tensor:
        input_ids, token_type_ids, attention_mask = batch
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._reads_type_ids:
            inputs["token_type_ids"] = token_type_ids
        with autocast(self._device, self._precision):
            if weights is None:
                output: Any = self._network(**inputs)
            else:
                output = functional_call(self._network, weights, kwargs=inputs)
            logits: torch.Tensor = output.logits
        return logits.float()


def _reads_type_ids(network: PreTrainedModel) -> bool:
    """Whether the network tells the first text of a pair from the second by token type."""
    if getattr(network.config, "type_vocab_size", 0) < 2:
        return False
    return "token_type_ids" in inspect.signature(network.forward).parameters

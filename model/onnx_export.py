"""A saved model's network as an ONNX file, which runtimes without torch run.

The file is compared with the network before it is handed over: exporters translate what they see,
and one that traces single calls was off by 0.02 for rows with padding.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model.disk import full_disk_named
from model.errors import TrainingError
from model.memory import memory_errors_named
from model.network import build_network, load_base
from model.onnx_card import tell_of_onnx
from model.onnx_packages import check_onnx_installed
from model.saved_model import SavedModel, read_saved
from model.tasks.catalogue import task_named

FILE = Path("onnx/model.onnx")
"""Within the model's folder: where Optimum and Transformers.js look for it."""
OPSET = 18
TOLERANCE = 1e-3
"""Of logits of a few units; other kernels round otherwise."""
_EXAMPLE = (2, 8)
_CHECKED = ((1, 4), (3, 11))
"""Rows and widths of batches; half of the first row is padding."""


def export_onnx(folder: Path, target: Path | None = None) -> Path:
    """Write the network of a saved model to ``target``, whole or not at all; returns the path. By
    default that is `FILE` in its folder, whose README says so then.

    Inputs are ``input_ids``, ``attention_mask`` and, where the network reads them,
    ``token_type_ids``, all [rows, width] int64; the output is ``logits`` as Transformers gives
    them. Raises `InputError` for what is no saved model and ``onnx_not_installed``, and
    `TrainingError`: ``onnx_differs`` where the file does not say what the network says,
    ``onnx_failed`` where the exporter cannot translate it, ``out_of_memory`` or ``disk_full``.
    """
    check_onnx_installed()
    saved = read_saved(folder)
    asked = _asked(folder, saved)
    path = folder / FILE if target is None else target
    with full_disk_named(), memory_errors_named():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".onnx-", dir=path.parent) as scratch:
            partial = Path(scratch) / path.name
            _write(asked, partial)
            _compare(asked, partial)
            for file in Path(scratch).iterdir():  # weights beyond 2 GB stand in a file of their own
                file.replace(path.parent / file.name)
        if target is None:
            tell_of_onnx(folder, saved, FILE)
    return path


class _Asked(nn.Module):
    """The network by plain arguments, as a file has them."""

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__()
        self.network = network
        self.vocabulary = int(config.vocab_size)
        self.names = ["input_ids", "attention_mask"]
        if getattr(config, "type_vocab_size", 0) > 1:
            self.names.append("token_type_ids")

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.names, inputs, strict=True))
        logits: torch.Tensor = self.network(**named).logits
        return logits

    def example(self, rows: int, width: int) -> tuple[torch.Tensor, ...]:
        """Drawn ids with padding in the first row, and second texts in the second half."""
        generator = torch.Generator().manual_seed(rows)
        ids = torch.randint(self.vocabulary, (rows, width), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, width // 2 :] = 0
        types = torch.zeros_like(ids)
        types[:, width // 2 :] = 1
        return (ids, mask, types)[: len(self.names)]


def _asked(folder: Path, saved: SavedModel) -> _Asked:
    base = load_base(folder)
    head = task_named(saved.config.task).saved(saved.labels, base.config).head
    network = build_network(base, head, device=torch.device("cpu"), dropout=None, trained=True)
    return _Asked(network.eval(), base.config)


def _write(asked: _Asked, path: Path) -> None:
    rows, width = torch.export.Dim("rows"), torch.export.Dim("width")
    with _quiet():
        try:
            program = torch.onnx.export(
                asked,
                asked.example(*_EXAMPLE),
                dynamo=True,
                opset_version=OPSET,
                input_names=asked.names,
                output_names=["logits"],
                dynamic_shapes=(tuple({0: rows, 1: width} for _ in asked.names),),
            )
        except torch.onnx.OnnxExporterError as error:
            detail = f"torch {torch.__version__} cannot translate the network: {error}"
            raise TrainingError("onnx_failed", f"{detail[:2000]}") from error
        assert program is not None
        program.save(path)


@torch.inference_mode()
def _compare(asked: _Asked, path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows, width in _CHECKED:
        inputs = asked.example(rows, width)
        wanted = asked(*inputs).numpy()
        given = {name: x.numpy() for name, x in zip(asked.names, inputs, strict=True)}
        (found,) = session.run(["logits"], given)
        real = given["attention_mask"].astype(bool) if wanted.ndim == 3 else slice(None)
        if not np.allclose(found[real], wanted[real], atol=TOLERANCE):
            apart = float(np.abs(found[real] - wanted[real]).max())
            detail = f"The file's logits differ from the network's by up to {apart:.2g}."
            raise TrainingError("onnx_differs", f"{detail} Nothing was written.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its progress on standard output and of its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""The loop: what it learns, keeps, repeats, survives and refuses."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from model.batches import Positions
from model.classifier import Classifier
from model.config import TrainConfig
from model.cross_entropy import class_weights, summed_cross_entropy
from model.devices import resolve_precision
from model.disk import is_disk_full
from model.errors import InputError, TrainingError
from model.evaluation import evaluate_split
from model.gradients import BatchGradients
from model.memory import PartSize, run_in_parts
from model.metrics import Evaluation
from model.network import Head, build_network
from model.normalised_file import Examples
from model.tokens import Sequences
from model.training import Decision, EpochReport, TrainData, TrainingCache, TrainResult, train
from model.trial_data import prepare
from model.vocabulary import save_tokenizer, train_wordpiece

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
QUICK = TrainConfig(
    learning_rate=2e-3, batch_size=16, max_length=16, epochs=2, seed=3, precision="fp32"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(90, 1), validation=examples(30, 2), labels=LABELS, dataset_key="words"
    )


def go_on(report: EpochReport) -> Decision:
    return "continue"


def run(config: TrainConfig, data: TrainData, **options: Any) -> TrainResult:
    return train(config, data, device=CPU, **{"on_epoch": go_on} | options)


def digest(result: TrainResult) -> str:
    assert result.trained is not None
    state = hashlib.sha256()
    for name in sorted(result.trained.weights):
        state.update(result.trained.weights[name].numpy().tobytes())
    return state.hexdigest()


def test_a_small_model_learns_a_small_task(data: TrainData) -> None:
    reports: list[EpochReport] = []

    def on_epoch(report: EpochReport) -> Decision:
        reports.append(report)
        return "continue"

    result = run(replace(QUICK, epochs=6), data, on_epoch=on_epoch)
    assert result.state == "completed"
    assert result.metrics["accuracy"] > 0.9
    assert result.value == result.metrics["macro_f1"]
    assert [report.epoch for report in reports] == [0, 1, 2, 3, 4, 5]
    assert tuple(reports) == result.epochs
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"]
    assert result.steps == 6 * 6  # 90 rows in batches of 16: five full ones and one of 10
    # The last step's rate: one of the 32 steps after the warm-up of ceil(3.6) is left.
    assert reports[-1].metrics["learning_rate"] == pytest.approx(2e-3 / 32)
    assert result.confusion is not None
    assert result.confusion.sum() == 30
    assert np.trace(result.confusion) == round(result.metrics["accuracy"] * 30)


def test_predictions_stand_in_the_order_of_the_rows(data: TrainData) -> None:
    reordered = np.random.default_rng(0).permutation(30)
    shuffled = Examples(
        [data.validation.text_a[row] for row in reordered],
        None,
        [data.validation.labels[row] for row in reordered],
        data.validation.rows[reordered],
    )
    found = run(QUICK, data).predictions
    other = run(QUICK, replace(data, validation=shuffled, dataset_key="shuffled")).predictions
    assert found is not None
    assert other is not None
    assert other.rows.tolist() == (reordered + 1).tolist()
    assert other.true.tolist() == found.true[reordered].tolist()
    assert other.predicted.tolist() == found.predicted[reordered].tolist()
    np.testing.assert_allclose(other.probability, found.probability[reordered], atol=1e-5)
    assert (found.probability >= 1 / 3).all()
    assert (found.probability <= 1).all()


def test_a_trial_gives_the_same_weights_whatever_ran_before_it(data: TrainData) -> None:
    first = run(QUICK, data)
    other = run(replace(QUICK, seed=4), data)
    torch.manual_seed(123)
    again = run(QUICK, data)
    assert digest(first) == digest(again)
    assert first.epochs == again.epochs
    assert digest(first) != digest(other)


def test_a_cache_changes_nothing_but_the_work(
    data: TrainData, model_folder: Callable[[str], Path]
) -> None:
    cache = TrainingCache(10**8)
    config = replace(QUICK, model=str(model_folder("bert")))
    plain = run(config, data)
    for _ in range(2):
        assert digest(run(config, data, cache=cache)) == digest(plain)
    longer = run(replace(config, max_length=20), data, cache=cache)
    assert digest(longer) == digest(run(replace(config, max_length=20), data))
    assert ("tokens", "words", "train", config.model) in cache


def test_training_leaves_the_callers_random_state_alone(data: TrainData) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    expected = (torch.rand(1).item(), float(np.random.rand()))
    torch.manual_seed(7)
    np.random.seed(7)
    run(replace(QUICK, epochs=1), data)
    assert (torch.rand(1).item(), float(np.random.rand())) == expected


def test_a_run_tells_how_far_it_is(data: TrainData) -> None:
    told: list[tuple[str, int, int]] = []
    run(QUICK, data, on_progress=lambda *said: told.append(said))
    # 90 rows in batches of 16 are 6 steps an epoch; the texts go through the tokenizer at once.
    assert told[:3] == [("tokenizing", 0, 90), ("tokenizing", 90, 90), ("tokenizing", 30, 30)]
    steps = [("training", step, 12) for step in range(1, 13)]
    assert [said for said in told if said[0] == "training"] == steps
    assert told[9:].index(("evaluating", 30, 30)) < told[9:].index(("training", 7, 12))
    assert told[-1] == ("evaluating", 30, 30)


def test_tokens_from_the_cache_are_not_told_of_again(data: TrainData) -> None:
    cache = TrainingCache(100_000_000)
    run(replace(QUICK, epochs=1), data, cache=cache)
    told: list[str] = []
    run(replace(QUICK, epochs=1), data, cache=cache, on_progress=lambda name, *_: told.append(name))
    assert told.count("tokenizing") == 1  # as it begins


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float], metric: str) -> None:
    """Let the validation metric follow a script; everything else stays real."""
    script = iter(values)

    def scripted_split(*arguments: Any, **options: Any) -> Evaluation:
        evaluation = evaluate_split(*arguments, **options)
        return replace(evaluation, metrics=evaluation.metrics | {metric: next(script)})

    monkeypatch.setattr("model.training_run.evaluate_split", scripted_split)


@pytest.mark.parametrize(
    ("metric", "direction", "values", "best"),
    [
        ("macro_f1", "maximize", [0.2, 0.6, 0.6, 0.4], 1),
        ("loss", "minimize", [0.9, 0.5, 0.5, 0.7], 1),
        ("accuracy", "maximize", [0.5, 0.4, 0.3, 0.2], 0),
    ],
)
def test_the_best_epoch_is_kept_and_a_tie_goes_to_the_earlier(
    data: TrainData,
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    direction: Any,
    values: list[float],
    best: int,
) -> None:
    # A constant rate makes the first epochs of a longer run equal those of a shorter one.
    base = replace(QUICK, lr_schedule="constant", warmup_ratio=0.0)
    shorter = run(replace(base, epochs=best + 1, metric="loss", direction="maximize"), data)
    scripted(monkeypatch, values, metric)
    result = run(replace(base, epochs=4, metric=metric, direction=direction), data)
    assert result.best_epoch == best
    assert result.value == values[best]
    if shorter.best_epoch == best:
        assert digest(result) == digest(shorter)


def test_the_weights_kept_are_those_of_the_best_epoch_not_the_last(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = replace(QUICK, lr_schedule="constant", warmup_ratio=0.0)
    one_epoch = run(replace(base, epochs=1), data)
    scripted(monkeypatch, [0.9, 0.1, 0.1], "macro_f1")
    assert digest(run(replace(base, epochs=3), data)) == digest(one_epoch)


def test_the_callback_ends_a_run_after_its_epoch(data: TrainData) -> None:
    def on_epoch(report: EpochReport) -> Decision:
        return "stop" if report.epoch == 1 else "continue"

    result = run(replace(QUICK, epochs=5), data, on_epoch=on_epoch)
    assert (result.state, len(result.epochs), result.steps) == ("stopped", 2, 12)
    assert result.trained is not None


def test_should_stop_ends_a_run_before_the_next_step(data: TrainData) -> None:
    asked = count()
    result = run(QUICK, data, should_stop=lambda: "no" if next(asked) < 9 else "now")
    assert (result.state, result.steps, len(result.epochs)) == ("stopped", 9, 1)
    assert result.best_epoch == 0


def test_a_run_stopped_in_its_first_epoch_has_no_model(data: TrainData, tmp_path: Path) -> None:
    result = run(QUICK, data, should_stop=lambda: "now")
    assert (result.state, result.steps, result.best_epoch) == ("stopped", 0, None)
    assert (result.value, result.metrics, result.confusion) == (None, {}, None)
    with pytest.raises(ValueError, match="no epoch"):
        result.save(tmp_path / "model")


def short_of_memory(
    monkeypatch: pytest.MonkeyPatch, rows: int, error: Callable[[], Exception]
) -> list[int]:
    """Let no more than ``rows`` rows through the network at once; records what went through."""
    seen: list[int] = []
    logits = Classifier.logits

    def limited(self: Classifier, sequences: Sequences, positions: Positions) -> torch.Tensor:
        if len(positions) > rows:
            raise error()
        seen.append(len(positions))
        return logits(self, sequences, positions)

    monkeypatch.setattr(Classifier, "logits", limited)
    return seen


CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory")
CPU_ERROR = RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize(("error", "weighting"), [(CUDA_ERROR, "none"), (CPU_ERROR, "inverse")])
def test_a_run_short_of_memory_ends_with_the_same_weights(
    data: TrainData, monkeypatch: pytest.MonkeyPatch, error: Exception, weighting: Any
) -> None:
    # A low rate, because AdamW blows up the rounding noise of gradients that are truly zero.
    config = replace(QUICK, learning_rate=2e-4, dropout=0.0, class_weighting=weighting)
    whole = run(config, data)
    seen = short_of_memory(monkeypatch, rows=5, error=lambda: error)
    parts = run(config, data)
    assert max(seen) <= 5
    assert parts.steps == whole.steps
    assert whole.trained is not None
    assert parts.trained is not None
    for name, tensor in whole.trained.weights.items():
        torch.testing.assert_close(parts.trained.weights[name], tensor, atol=1e-6, rtol=0)


def test_one_step_in_parts_is_the_step_of_the_whole_batch(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(QUICK, learning_rate=2e-4, batch_size=90, epochs=1, dropout=0.0)
    start = run(replace(config, learning_rate=1e-30, weight_decay=0.0), data).trained
    whole = run(config, data).trained
    seen = short_of_memory(monkeypatch, rows=7, error=lambda: CUDA_ERROR)
    parts = run(config, data).trained
    assert len(seen) > 90 // 7
    assert start is not None
    assert whole is not None
    assert parts is not None
    moved = apart = 0.0
    for name, tensor in whole.weights.items():
        moved = max(moved, (tensor - start.weights[name]).abs().max().item())
        apart = max(apart, (tensor - parts.weights[name]).abs().max().item())
    assert moved > 1e-4
    assert apart < 5e-6  # where a gradient is nearly zero, AdamW blows up its rounding


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss_name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weighting", ["none", "inverse"])
def test_the_gradients_of_uneven_parts_add_up_to_those_of_the_mean_loss(
    data: TrainData, weighting: Any, loss_name: Any, smoothing: float
) -> None:
    data = replace(data, train=subset(data.train, [0, 1, 2, 3, 6, 9, 12]))  # five of one class
    material = prepare(QUICK, data, TrainingCache(0))
    network = build_network(material.base, Head(LABELS), device=CPU, dropout=0.0)
    classifier = Classifier(network, 512, CPU, "fp32")
    config = replace(
        QUICK, class_weighting=weighting, label_smoothing=smoothing, loss=loss_name, batch_size=90
    )
    gradients = BatchGradients(
        classifier,
        material.train,
        material.task.loss(material.train, config, CPU),
        part_rows=config.batch_size,
        clear=network.zero_grad,
    )
    positions = np.arange(7)
    ids = material.train.targets
    weights = torch.from_numpy(class_weights(np.bincount(ids, minlength=3), weighting))
    reference = summed_cross_entropy(
        classifier.logits(material.train.sequences, positions),
        torch.from_numpy(ids),
        weights,
        smoothing=smoothing,
        gamma=2.0 if loss_name == "focal" else 0.0,
    )
    reference = reference / weights[ids].sum()
    reference.backward()
    expected = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    gradients.part_size.max_tokens = int(material.train.sequences.lengths.max()) * 3  # 3, 2, 2
    loss = gradients.add(positions)
    assert loss.item() == pytest.approx(reference.item(), abs=1e-6)
    for name, parameter in network.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-6, rtol=1e-4)


def subset(examples: Examples, rows: list[int]) -> Examples:
    texts, labels = ([column[row] for row in rows] for column in (examples.text_a, examples.labels))
    return Examples(texts, None, labels, examples.rows[rows])


def test_a_row_that_does_not_fit_alone_is_out_of_memory(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, rows=0, error=lambda: torch.OutOfMemoryError("no"))
    with pytest.raises(TrainingError) as raised:
        run(QUICK, data)
    assert raised.value.code == "out_of_memory"


def test_memory_that_runs_out_elsewhere_is_named_too(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_optimizer(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("model.training_run.build_optimizer", build_optimizer)
    with pytest.raises(TrainingError, match="Tried to allocate") as raised:
        run(QUICK, data)
    assert raised.value.code == "out_of_memory"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "gpu_lost"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), "gpu_lost"),
        (RuntimeError("No CUDA GPUs are available"), "gpu_lost"),
        (torch.AcceleratorError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "out_of_memory"),
    ],
)
def test_a_card_that_fails_is_told_from_one_that_is_full(
    data: TrainData, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    short_of_memory(monkeypatch, rows=0, error=lambda: error)
    with pytest.raises(TrainingError) as raised:
        run(QUICK, data)
    assert raised.value.code == code


def test_an_assertion_in_a_kernel_is_no_lost_card(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    short_of_memory(monkeypatch, rows=0, error=lambda: error)
    with pytest.raises(torch.AcceleratorError):
        run(QUICK, data)


def test_a_model_that_finds_no_room_is_named_with_advice_and_leaves_nothing(
    data: TrainData, small_disk: Path
) -> None:
    result = run(replace(QUICK, epochs=1), data)
    with pytest.raises(TrainingError, match="Free some space") as raised:
        result.save(small_disk / "model")
    assert raised.value.code == "disk_full"
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (SafetensorError("I/O error: No space left on device (os error 28)"), True),
        (SafetensorError("I/O error: Permission denied (os error 13)"), False),
    ],
)
def test_a_full_disk_is_told_from_other_failures(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full


def test_parts_are_cut_by_tokens_so_that_shorter_batches_stay_whole() -> None:
    size, lengths = PartSize(), np.array([10] * 8 + [4] * 8)
    long, short = np.arange(8), np.arange(8, 16)
    tried: list[int] = []

    def work(part: np.ndarray[Any, Any]) -> int:
        tried.append(len(part))
        if lengths[part].max() * len(part) > 45:
            raise MemoryError
        return len(part)

    assert run_in_parts(work, long, lengths, size) == [4, 4]
    assert tried == [8, 4, 4]
    assert run_in_parts(work, short, lengths, size) == [8]


def test_an_error_that_is_not_about_memory_passes_through() -> None:
    def work(part: np.ndarray[Any, Any]) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run_in_parts(work, np.arange(4), np.ones(4, dtype=np.int64), PartSize())


def test_a_loss_that_explodes_is_named(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_broken(*arguments: Any, **options: Any) -> Any:
        network: Any = build_network(*arguments, **options)
        torch.nn.init.constant_(network.classifier.bias, float("nan"))
        return network

    monkeypatch.setattr("model.training_run.build_network", build_broken)
    with pytest.raises(TrainingError) as raised:
        run(QUICK, data)
    assert raised.value.code == "nan_loss"


def test_the_share_of_truncated_rows_is_reported(data: TrainData) -> None:
    words = np.array([len(text.split()) for text in data.train.text_a])
    result = run(replace(QUICK, epochs=1, max_length=7), data)
    assert result.truncated_share == pytest.approx((words > 5).mean())
    # Every word is a piece of its own in this vocabulary.
    assert result.lost_token_share == pytest.approx(np.maximum(words - 5, 0).sum() / words.sum())


def test_pairs_are_trained_on_both_texts(data: TrainData) -> None:
    def paired(examples: Examples) -> Examples:
        return replace(examples, text_a=["please"] * len(examples.labels), text_b=examples.text_a)

    pairs = replace(data, train=paired(data.train), validation=paired(data.validation))
    result = run(replace(QUICK, epochs=6, max_length=24), pairs)
    assert result.metrics["accuracy"] > 0.9


def test_a_scratch_vocabulary_may_be_given(data: TrainData, tmp_path: Path) -> None:
    own = run(QUICK, data)
    assert own.trained is not None
    save_tokenizer(own.trained.tokenizer, tmp_path)
    given = run(QUICK, replace(data, tokenizer_folder=tmp_path))
    assert digest(given) == digest(own)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_length": 513}, "invalid_value"),
        ({"task": "speech"}, "unsupported_task"),
        ({"metric": "beauty"}, "unknown_metric"),
        ({"model": "scratch:huge"}, "unknown_model"),
        ({"model": "/no/such/folder"}, "unknown_model"),
    ],
)
def test_what_cannot_be_trained_is_refused(data: TrainData, change: Any, code: str) -> None:
    with pytest.raises(InputError) as raised:
        run(replace(QUICK, **change), data)
    assert raised.value.code == code
    assert raised.value.where


def test_a_label_that_is_not_among_the_labels_is_refused(data: TrainData) -> None:
    with pytest.raises(InputError, match="'shipping'") as raised:
        run(QUICK, replace(data, labels=LABELS[:2]))
    assert raised.value.code == "unseen_label"


def test_an_empty_split_is_refused(data: TrainData) -> None:
    empty = Examples([], None, [], np.empty(0, dtype=np.int64))
    with pytest.raises(InputError, match="validation split") as raised:
        run(QUICK, replace(data, validation=empty))
    assert raised.value.code == "no_rows"


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused(
    data: TrainData, model_folder: Callable[[str], Path]
) -> None:
    folder = model_folder("bert")
    texts = [f"{word}{number}" for word in ("alpha", "beta") for number in range(90)] * 3
    save_tokenizer(train_wordpiece(texts, 400), folder)
    with pytest.raises(InputError) as raised:
        run(replace(QUICK, model=str(folder)), data)
    assert raised.value.code == "wrong_tokenizer"


def test_a_stated_precision_is_what_is_used(data: TrainData) -> None:
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", CPU) == "fp32"
    result = run(replace(QUICK, precision="bf16", epochs=1), data)
    assert result.precision == "bf16"
    assert result.trained is not None
    assert {t.dtype for t in result.trained.weights.values()} == {torch.float32}


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bf16_on_a_processor_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")

"""The lines between an agent and its trainer."""

import io
import math
import threading

import pytest

from service.worker.pipe import (
    Decide,
    Epoch,
    Evaluate,
    Failed,
    Finished,
    FromTrainer,
    Keep,
    Kept,
    PipeError,
    Ready,
    Saved,
    SplitFile,
    Stop,
    ToTrainer,
    Train,
    decode_from_trainer,
    decode_to_trainer,
    encode,
)
from service.worker.trainer_loop import Commands, finite
from studies.wire.leases import ClassMetrics, ConfusionMatrix, Device

TRAIN = Train(
    job="t1/2",
    config={"learning_rate": 1e-4, "epochs": 3, "dropout": None, "lr_schedule": "linear"},
    labels=["größer", "b\nc"],
    train=SplitFile("/cache/a", "train", "/cache/rows"),
    validation=SplitFile("/cache/a", "validation", "/cache/rows"),
    dataset_key="d:1",
    model_key="m",
    predictions_path="/cache/predictions.csv",
    checkpoint_path="/cache/checkpoints/t1/state.safetensors",
    checkpoint_s=0.5,
    resume_path="/cache/resume.safetensors",
)
TO_TRAINER: list[ToTrainer] = [
    TRAIN,
    Evaluate(
        job="t1/2",
        config={"model": "/m"},
        labels=["a", "b"],
        data=SplitFile("/cache/t", "test"),
        predictions_path="/p",
    ),
    Decide(job="t1/2", decision="stop"),
    Keep(job="t1/2", folder="/w/model"),
    Stop(job="t1/2", save=True),
]
FROM_TRAINER: list[FromTrainer] = [
    Ready(device=Device(kind="cpu", name="cpu", memory_bytes=1, precision="fp32")),
    Epoch(job="t1/2", epoch=0, metrics={"loss": 0.5}),
    Saved(job="t1/2", epochs=1),
    Finished(
        job="t1/2",
        value=0.5,
        best_epoch=1,
        metrics={"macro_f1": 0.5},
        per_class=[ClassMetrics(label="a", precision=1, recall=0.5, f1=0.25, support=4)],
        confusion=ConfusionMatrix(labels=["a", "b"], matrix=[[3, 1], [0, 2]]),
        info={"steps": 12, "versions": {"torch": "2"}},
    ),
    Kept(job="t1/2", problems=["onnx_failed: Why."]),
    Failed(job="t1/2", code="nan_loss", detail="line\nline", retry=False),
]


@pytest.mark.parametrize("message", TO_TRAINER, ids=lambda m: m.type)
def test_a_command_comes_through_as_it_was_sent(message: ToTrainer) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_to_trainer(line) == message


@pytest.mark.parametrize("message", FROM_TRAINER, ids=lambda m: m.type)
def test_a_report_comes_through_as_it_was_sent(message: FromTrainer) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_from_trainer(line) == message


def test_a_line_that_is_no_message_is_refused_with_its_text() -> None:
    with pytest.raises(PipeError, match="Loading weights"):
        decode_from_trainer(b"Loading weights: 100%\n")
    with pytest.raises(PipeError):
        decode_to_trainer(encode(Kept(job="t1/2")))  # the other direction


def test_metrics_that_json_cannot_carry_are_left_out() -> None:
    metrics = {"loss": math.nan, "mcc": math.inf, "accuracy": 0.5}
    assert finite(metrics) == {"accuracy": 0.5}


def test_a_decision_for_an_earlier_job_is_not_taken_for_this_one() -> None:
    commands = _commands(
        Decide(job="old/1", decision="stop"), Decide(job="new/1", decision="continue")
    )
    assert commands.decision("new/1") == "continue"


def test_a_stop_ends_the_wait_for_a_decision_and_is_seen_between_steps() -> None:
    commands = _commands(Stop(job="old/1"), Stop(job="new/1"))
    assert commands.decision("new/1") == "stop"
    assert commands.stopping("new/1") == "now"
    assert commands.stopping("old/1") == "no"


def test_a_stop_may_want_a_checkpoint_first_and_a_later_one_not() -> None:
    commands = _commands(Stop(job="a/1", save=True))
    assert commands.decision("a/1") == "stop"
    assert commands.stopping("a/1") == "after_saving"
    commands = _commands(
        Stop(job="a/1", save=True), Stop(job="a/1"), Decide(job="b/1", decision="save")
    )
    assert commands.decision("b/1") == "save"
    assert commands.stopping("a/1") == "now"


class _EndlessInput(io.RawIOBase):
    """Lines, and then no end: the end of the real pipe ends the process."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def __next__(self) -> bytes:
        if not self._lines:
            threading.Event().wait()  # the reading thread is a daemon
        return self._lines.pop(0)


def _commands(*messages: ToTrainer) -> Commands:
    commands = Commands(_EndlessInput([encode(message) for message in messages]))  # type: ignore[arg-type]
    commands.start()
    return commands

"""Several label columns through a real server and a real worker, to models that can be asked."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from command_line import bertune, clean_environment
from real_parts import StartWorker, submit, until

from studies.api import Api, ApiError

COLUMNS = {
    "urgency": {"column": "urg", "task": "regression"},
    "topic": "about",
    "flags": {"column": "marks", "task": "multi_label"},
}


def tickets(folder: Path) -> Path:
    """A word for every label; every fifth row lacks a topic, every third an urgency."""
    draw = random.Random(1)
    lines = ["text,about,urg,marks"]
    for number in range(90):
        topic = draw.choice(["card", "cash"])
        flags = [flag for flag in ("angry", "new") if draw.random() < 0.4]
        now = draw.randrange(4)
        words = [topic, *flags, *["now"] * now, f"case {number}"]
        about, urgent = topic if number % 5 else "", now if number % 3 else ""
        lines.append(f"{' '.join(words)},{about},{urgent},{'|'.join(flags)}")
    path = folder / "tickets.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_study_of_three_heads_from_its_data_to_its_models(
    client: Api, each_server: tuple[str, str], start: StartWorker, tmp_path: Path
) -> None:
    data = tickets(tmp_path)
    options = {"label_columns": COLUMNS, "test_fraction": 0.2}
    study = submit(
        client,
        data,
        files={"options": options},
        search_space={
            "learning_rate": {"type": "float", "low": 1e-3, "high": 3e-3},
            "loss_weight.urgency": {"type": "float", "low": 0.1, "high": 1.0, "log": True},
        },
        training={"epochs": 3, "max_length": 16, "loss_weight.flags": 0.5},
        objective={"metric": "topic.macro_f1"},
    )
    worker = start()
    done: Any = until(lambda: (s := client.study(study)).finished_at and s, lambda: worker.log)
    assert done.state == "completed", (done.error, worker.log)
    assert done.objective == {"metric": "topic.macro_f1", "direction": "maximize"}
    dataset = client.dataset(done.dataset)
    assert dataset.labelled == {"train": {"flags": 90, "topic": 72, "urgency": 60}}
    assert dataset.labels[:4] == ["flags.angry", "flags.new", "topic.card", "topic.cash"]

    trial = client.trial(study, 0)
    assert trial.params is not None
    assert 0.1 <= float(trial.params["loss_weight.urgency"]) <= 1
    figures = trial.metrics
    usual = (figures["flags.micro_f1"], figures["topic.macro_f1"], figures["urgency.spearman"])
    assert figures["heads_mean"] == pytest.approx(sum(usual) / 3)
    classes = [(score.head, score.label) for score in trial.per_class]
    assert classes == [("flags", "angry"), ("flags", "new"), ("topic", "card"), ("topic", "cash")]
    assert done.test is not None
    for split, metrics in (("validation", figures), ("test", done.test.metrics)):
        topic = client.confusion(study, 0, split, head="topic")
        assert (topic.head, topic.kind, topic.labels) == ("topic", "multiclass", ["card", "cash"])
        right = sum(topic.matrix[k][k] for k in range(2))
        assert metrics["topic.accuracy"] == pytest.approx(right / topic.rows)
        bins = client.confusion(study, 0, split, head="urgency")
        assert [f"urgency.{label}" for label in bins.labels] == dataset.labels[4:]
        flags = client.confusion(study, 0, split)
        assert (flags.head, flags.kind) == ("flags", "label_by_label")
        halves = client.confusion(study, 0, split, "per_class", "new", "flags")
        assert halves.labels == ["¬new", "new"]
    with pytest.raises(ApiError, match="topic: multiclass"):
        client.confusion(study, 0, head="mood")

    client.save_predictions(study, 0, tmp_path / "said.csv")
    with (tmp_path / "said.csv").open(encoding="utf-8", newline="") as file:
        said = list(csv.DictReader(file))
    of_topic = [row for row in said if row["topic.true"]]
    assert len(said) == 14
    right = sum(row["topic.true"] == row["topic.predicted"] for row in of_topic)
    assert figures["topic.accuracy"] == pytest.approx(right / len(of_topic))

    _ask_a_head(client.download_best(study, tmp_path / "best"), data, of_topic)
    environment = clean_environment(BERTUNE_SERVER=each_server[0], BERTUNE_KEY=each_server[1])
    drawn = bertune(environment, "confusion", study, "0", "--head", "topic")
    assert "cash" in drawn.stdout
    assert "Head topic of flags, topic, urgency" in drawn.stderr + drawn.stdout
    bertune(environment, "export", study, tmp_path / "export", "--no-model")
    assert sorted(path.name for path in (tmp_path / "export" / "confusion").iterdir()) == [
        f"{split}-0-{head}.csv"
        for split in ("test", "validation")
        for head in ("flags", "topic", "urgency")
    ]


def _ask_a_head(folder: Path, data: Path, recorded: list[dict[str, str]]) -> None:
    """The head's own folder gives a plain pipeline the predictions that the trial recorded."""
    from transformers import pipeline

    with data.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    ask = pipeline("text-classification", str(folder / "heads" / "topic"), device="cpu")
    found: Any = ask([texts[int(row["row"]) - 1] for row in recorded], truncation=True)
    assert [answer["label"] for answer in found] == [row["topic.predicted"] for row in recorded]
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))["bertune"]
    assert sorted(facts["heads"]) == ["flags", "topic", "urgency"]


def test_a_weight_of_no_head_is_refused_with_its_field(client: Api, tmp_path: Path) -> None:
    files = {"options": {"label_columns": COLUMNS}}
    with pytest.raises(ApiError) as caught:
        submit(client, tickets(tmp_path), files=files, training={"loss_weight.mood": 2.0})
    assert caught.value.where == ("body", "training", "loss_weight.mood")
    with pytest.raises(ApiError) as caught:
        submit(client, tickets(tmp_path), files=files, training={"loss_weight.topic": 0})
    assert caught.value.where == ("body", "training", "loss_weight.topic")
    with pytest.raises(ApiError, match=r"urgency\.spearman"):
        submit(client, tickets(tmp_path), files=files, objective={"metric": "urgency.f1"})

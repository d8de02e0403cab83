"""Every task through a real server and a real worker, to a matrix that can be read."""

import json
import random
from pathlib import Path
from typing import Any

from real_parts import StartWorker, submit, until

from model.prediction import predict
from studies.api import Api
from studies.wire.studies import StudyAnswer

SPACE = {"learning_rate": {"type": "float", "low": 1e-3, "high": 3e-3}}


def searched(
    client: Api,
    start: StartWorker,
    data: Path,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> StudyAnswer:
    """A study of one trial and its test split, searched to its end."""
    # What is tested on stands in train too; the reader would leave nothing of it.
    files = {"test": data, "options": {"duplicates": "keep"} | (options or {})}
    study = submit(client, data, files=files, search_space=SPACE, **changes)
    worker = start()
    done: StudyAnswer = until(
        lambda: (s := client.study(study)).finished_at and s, lambda: worker.log
    )
    assert done.state == "completed", (done.error, worker.log)
    assert done.test is not None
    return done


def topics(folder: Path) -> Path:
    draw = random.Random(1)
    lines = ["text,labels"]
    for number in range(60):
        found = [topic for topic in ("card", "cash", "loan") if draw.random() < 0.4]
        lines.append(f"please help {' '.join(found)} case {number},{'|'.join(found)}")
    path = folder / "topics.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def ratings(folder: Path) -> Path:
    draw = random.Random(1)
    lines = ["text_a,text_b,score"]
    for number in range(60):
        good = draw.randrange(5)
        lines.append(f"case {number} was,{'good ' * good}indeed,{100 + 10 * good}")
    path = folder / "ratings.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_number_for_every_pair(client: Api, start: StartWorker, tmp_path: Path) -> None:
    objective = {"metric": "mae"}
    done = searched(client, start, ratings(tmp_path), objective=objective)
    assert done.objective == {"metric": "mae", "direction": "minimize"}
    assert done.best is not None
    assert 0 < done.best.value < 100
    dataset = client.dataset(done.dataset)
    matrix = client.confusion(done.id, 0, "test")
    assert (matrix.kind, matrix.unit, matrix.rows) == ("bins", "rows", 60)
    assert matrix.labels == dataset.labels
    assert [sum(row) for row in matrix.matrix] == list(dataset.label_counts["test"].values())


def tickets(folder: Path) -> Path:
    draw = random.Random(1)
    lines = ["subject,body,notes,label"]
    for number in range(60):
        topic = draw.choice(("card", "loan"))
        notes = draw.choice(("", "vip", "new"))
        lines.append(f"about my {topic},case {number} please help,{notes},{topic}")
    path = folder / "tickets.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_several_text_columns_encoded_apart(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    columns = {"text_columns": ["subject", "body", "notes"], "missing": "empty"}
    training = {"columns": "apart", "batch_size": 4, "epochs": 6}
    done = searched(client, start, tickets(tmp_path), options=columns, training=training)
    assert done.test is not None
    assert done.test.metrics["accuracy"] > 0.8
    missing = client.dataset(done.dataset).missing_texts["train"]
    assert (missing["subject"], missing["body"]) == (0, 0)
    assert missing["notes"] > 0
    folder = client.download_best(done.id, tmp_path / "best")
    said = predict(folder, ["about my loan", ""], ["please", "card"], ["", ""])
    assert [answer.label for answer in said] == ["loan", "card"]


def test_several_labels_per_row(client: Api, start: StartWorker, tmp_path: Path) -> None:
    done = searched(client, start, topics(tmp_path))
    assert done.objective == {"metric": "micro_f1", "direction": "maximize"}
    assert done.test is not None
    for split, metrics in (
        ("validation", client.trial(done.id, 0).metrics),
        ("test", done.test.metrics),
    ):
        usual = client.confusion(done.id, 0, split)
        assert (usual.kind, usual.unit) == ("label_by_label", "pairs")
        assert usual.labels == ["card", "cash", "loan", "∅"]
        summed = client.confusion(done.id, 0, split, "per_class")
        ((_, wrong), (missed, hits)) = summed.matrix
        assert metrics["micro_f1"] == 2 * hits / (2 * hits + missed + wrong)
        card = client.confusion(done.id, 0, split, "per_class", "card")
        assert (card.labels, card.unit) == (["¬card", "card"], "rows")
        assert sum(map(sum, card.matrix)) * 3 == summed.rows
    folder = client.download_best(done.id, tmp_path / "best")
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))["bertune"]
    assert sorted(facts["thresholds"]) == ["card", "cash", "loan"]


def names(folder: Path) -> Path:
    draw = random.Random(1)
    rows = []
    for number in range(60):
        person = draw.random() < 0.5
        middle = ["anna", "lee"] if person else ["york"]
        tags = ["B-per", "I-per"] if person else ["B-loc"]
        tokens = ["we", "met" if person else "saw", *middle, "again", str(number)]
        rows.append({"tokens": tokens, "tags": ["O", "O", *tags, "O", "O"]})
    path = folder / "names.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_tag_for_every_token(client: Api, start: StartWorker, tmp_path: Path) -> None:
    done = searched(client, start, names(tmp_path))
    assert done.objective == {"metric": "entity_f1", "direction": "maximize"}
    trial = client.trial(done.id, 0)
    assert [score.label for score in trial.per_class] == ["loc", "per"]
    entities = client.confusion(done.id, 0)
    assert (entities.kind, entities.unit) == ("entities", "entities")
    assert entities.labels == ["loc", "per", "∅"]
    support = [score.support for score in trial.per_class]
    assert [sum(row) for row in entities.matrix[:2]] == support
    tokens = client.confusion(done.id, 0, "test", "tokens")
    assert (tokens.unit, tokens.labels[0]) == ("tokens", "O")
    assert tokens.rows == sum(len(line.split()) for line in _texts(tmp_path / "names.jsonl"))


def _texts(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [" ".join(json.loads(line)["tokens"]) for line in lines]

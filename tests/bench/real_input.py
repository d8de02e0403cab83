"""Real input through a running server: a study each on subj and banking77 with a local model.

    python tests/bench/real_input.py --data FOLDER [--model local:minilm]

The server is the one of BERTUNE_SERVER with the key of BERTUNE_KEY or BERTUNE_HOME. ``FOLDER``
holds `subj` and `banking77`, each with train.csv, dev.csv and test.csv (columns text,label).
Prints a table row per study, after checking every completed trial's confusion matrix against the
validation rows and the accuracy; exits 1 when a check fails.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from studies.api import Api

SPACE: dict[str, dict[str, Any]] = {
    "subj": {
        "learning_rate": {"type": "float", "low": 2e-5, "high": 2e-4, "log": True},
        "batch_size": {"type": "categorical", "choices": [16, 32]},
        "max_length": {"type": "int", "low": 32, "high": 64, "step": 16},
    },
    "banking77": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 5e-4, "log": True},
        "batch_size": {"type": "categorical", "choices": [16, 32]},
        "max_length": {"type": "int", "low": 32, "high": 64, "step": 16},
    },
}
EPOCHS = {"subj": 1, "banking77": 3}
WANTED = {"subj": 0.93, "banking77": 0.85}
TRIALS = 4


def run_study(client: Api, name: str, folder: Path, model: str) -> str:
    """Upload, submit and wait; return the study's id."""
    dataset = client.upload_dataset(
        folder / "train.csv", folder / "dev.csv", folder / "test.csv", name=name
    )
    spec = {
        "name": f"{name}-real",
        "dataset": dataset.id,
        "model": model,
        "search_space": SPACE[name],
        "training": {"epochs": EPOCHS[name]},
        "objective": {"metric": "accuracy"},
        "budget": {"n_trials": TRIALS},
    }
    study = client.submit(spec)
    client.wait(study.id, on_change=lambda seen: print(seen.name, seen.state, seen.trials))
    return study.id


def check_matrices(client: Api, study_id: str, validation_rows: int) -> list[str]:
    """What is wrong with the confusion matrices of the completed trials, in sentences."""
    faults = []
    for row in client.trials(study_id):
        if row.state != "completed":
            continue
        matrix = client.confusion(study_id, row.number).matrix
        cells = sum(map(sum, matrix))
        diagonal = sum(matrix[label][label] for label in range(len(matrix)))
        if cells != validation_rows:
            faults.append(f"trial {row.number}: {cells} cells, {validation_rows} rows")
        if abs(diagonal / cells - row.metrics["accuracy"]) > 1e-9:
            faults.append(f"trial {row.number}: diagonal {diagonal} is not the accuracy")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="local:minilm")
    arguments = parser.parse_args()
    rows, faults = [], []
    with Api() as client:
        for name in SPACE:
            started = time.perf_counter()
            study_id = run_study(client, name, arguments.data / name, arguments.model)
            minutes = (time.perf_counter() - started) / 60
            study = client.study(study_id)
            if study.best is None or study.test is None:
                faults.append(f"{name}: {study.state}, {study.error}")
                continue
            validation_rows = client.dataset(study.dataset).rows["validation"]
            faults += check_matrices(client, study_id, validation_rows)
            if study.best.value < WANTED[name]:
                faults.append(f"{name}: best accuracy {study.best.value:.4f}")
            counts = study.trials
            rows.append(
                f"| {name} | {counts.completed} completed, {counts.pruned} pruned | "
                f"{EPOCHS[name]} | {study.best.params} | {study.best.value:.4f} | "
                f"{study.test.metrics['accuracy']:.4f} ({study.test.opened}) | {minutes:.1f} |"
            )
    print("| data | trials | epochs | best parameters | validation | test (opened) | minutes |")
    print("|---|---|---|---|---|---|---|", *rows, *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

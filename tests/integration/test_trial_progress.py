"""How far running trials are: what workers tell with their renewals, and what people read of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, make_study, renew_request, result_request
from sqlalchemy import select

from service.store.database import Database
from service.store.tables import Trial
from studies.wire.leases import Lease

STEPS = 300


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path) as server:
        yield server


def claim(api: ApiServer, slot: int = 0) -> Lease:
    body = claim_request(slot=slot).model_dump(mode="json")
    answer = api.client.post("/v1/leases", json=body)
    assert answer.status_code == 200, answer.text
    return Lease.model_validate_json(answer.content)


def renew(api: ApiServer, lease: Lease, *values: float, stage: Any = None) -> Any:
    """Report epochs and, if ``stage`` is not None, what the trial is at."""
    body = renew_request(*values).model_dump(mode="json", exclude={"stage"})
    if stage is not None:
        body["stage"] = stage
    return api.client.put(f"/v1/leases/{lease.trial_id}/{lease.attempt}", json=body)


def training(done: int) -> dict[str, Any]:
    return {"name": "training", "done": done, "total": STEPS, "unit": "steps"}


def end(api: ApiServer, lease: Lease, how: str, body: Any = None) -> None:
    url = f"/v1/leases/{lease.trial_id}/{lease.attempt}/{how}"
    assert api.client.post(url, json=body or {}).status_code == 200


def pass_time(api: ApiServer, lease: Lease, seconds: float) -> None:
    """As if all that was told of a trial had been told so much earlier."""
    with api.context.database.transaction() as session:
        trial = session.get_one(Trial, lease.trial_id)
        assert trial.leased_since is not None
        trial.leased_since -= seconds
        told = trial.stage
        if told is not None:
            pace = told["pace"]
            trial.stage = {
                **told,
                "at_s": told["at_s"] - seconds,
                "pace": None if pace is None else [pace[0], pace[1] - seconds],
            }


def row(api: ApiServer, study_id: str, number: int = 0) -> Any:
    """The trial in the list; alone it says the same."""
    found = api.get(f"/v1/studies/{study_id}/trials")["items"][number]
    alone = api.get(f"/v1/studies/{study_id}/trials/{number}")["progress"]
    if alone is not None:  # a moment passed between the two
        assert alone | {"eta_s": None} == found["progress"] | {"eta_s": None}
    return found


def study_progress(api: ApiServer, study_id: str) -> Any:
    return api.get(f"/v1/studies/{study_id}")["progress"]


def test_a_renewal_says_what_the_trial_is_at(api: ApiServer) -> None:
    study_id = make_study(api.context.database, n_trials=2, training={"epochs": 3})
    assert row(api, study_id)["progress"] is None
    lease = claim(api)
    assert row(api, study_id)["progress"] == {
        "epoch": 0,
        "epochs": 3,
        "share": 0,
        "eta_s": None,
        "best_value": None,
        "stage": None,
    }

    fetching = {"name": "downloading", "done": 10, "total": None, "unit": "bytes"}
    assert renew(api, lease, stage=fetching).status_code == 200
    assert row(api, study_id)["progress"]["stage"] == fetching

    renew(api, lease, 0.5, 0.25, stage=training(210))
    progress = row(api, study_id)["progress"]
    assert progress == {
        "epoch": 2,
        "epochs": 3,
        "share": 0.7,
        "eta_s": None,
        "best_value": 0.5,
        "stage": training(210),
    }
    assert study_progress(api, study_id)["share"] == 0.35

    scoring = {"name": "evaluating", "done": 8, "total": 30, "unit": "rows"}
    renew(api, lease, stage=scoring)
    progress = row(api, study_id)["progress"]
    assert (progress["stage"], progress["share"]) == (scoring, 0.7)


def test_the_best_value_so_far_follows_the_direction(api: ApiServer) -> None:
    study_id = make_study(api.context.database, objective={"metric": "loss"})
    lease = claim(api)
    body = {"reports": [{"epoch": n, "metrics": {"loss": x}} for n, x in enumerate((3, 1, 2))]}
    api.client.put(f"/v1/leases/{lease.trial_id}/1", json=body)
    assert row(api, study_id)["progress"]["best_value"] == 1


def test_a_worker_that_tells_no_stage_is_followed_by_its_epochs(api: ApiServer) -> None:
    study_id = make_study(api.context.database, n_trials=1, training={"epochs": 4})
    lease = claim(api)
    assert renew(api, lease, 0.5).status_code == 200
    progress = row(api, study_id)["progress"]
    assert (progress["epoch"], progress["share"], progress["stage"]) == (1, 0.25, None)
    renew(api, lease, 0.5, 0.5, 0.5, 0.5)
    progress = row(api, study_id)["progress"]
    assert (progress["epoch"], progress["share"]) == (3, 1)


def test_searched_epochs_are_counted_for_each_trial_alone(api: ApiServer) -> None:
    space = {"epochs": {"type": "categorical", "choices": [2]}}
    study_id = make_study(api.context.database, search_space=space)
    claim(api)
    assert row(api, study_id)["progress"]["epochs"] == 2


@pytest.mark.parametrize(
    "stage",
    [
        {"name": "Training", "done": 1, "total": 2, "unit": "steps"},
        {"name": "training", "done": -1, "total": 2, "unit": "steps"},
        {"name": "training", "done": 2**63, "total": 2, "unit": "steps"},
        {"name": "training", "done": 1, "total": 2, "unit": "steps", "mood": "fine"},
        {"name": "training"},
    ],
)
def test_a_stage_of_another_form_is_refused_and_changes_nothing(
    api: ApiServer, stage: dict[str, Any]
) -> None:
    study_id = make_study(api.context.database)
    lease = claim(api)
    refused = renew(api, lease, 0.5, stage=stage)
    assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
    assert refused.json()["where"][:2] == ["body", "stage"]
    assert row(api, study_id)["epoch"] is None


@pytest.mark.parametrize("how", ["result", "release", "failure"])
def test_with_the_attempt_its_stage_ends(api: ApiServer, how: str) -> None:
    bodies = {
        "result": result_request(0.5).model_dump(mode="json"),
        "failure": {"code": "nan_loss", "detail": "no number"},
    }
    study_id = make_study(api.context.database, n_trials=2)
    lease = claim(api)
    renew(api, lease, stage=training(30))
    end(api, lease, how, bodies.get(how))
    assert row(api, study_id)["progress"] is None
    with api.context.database.reading() as session:
        assert session.scalars(select(Trial.stage)).all() == [None, None]
    again = claim(api, slot=1)
    if how == "release":  # the second attempt of the same trial begins from nothing
        assert (again.trial_id, again.attempt) == (lease.trial_id, 2)
        assert row(api, study_id)["progress"]["share"] == 0


def test_the_time_left_of_a_trial_follows_its_pace_within_the_attempt(api: ApiServer) -> None:
    study_id = make_study(api.context.database, n_trials=1)
    lease = claim(api)
    pass_time(api, lease, 5000)  # a long download, which says nothing of the pace
    renew(api, lease, stage=training(60))  # of 300: a checkpoint brought a fifth along
    assert row(api, study_id)["progress"]["eta_s"] is None
    assert study_progress(api, study_id)["eta_s"] is None
    pass_time(api, lease, 1000)
    renew(api, lease, stage=training(180))
    # 120 steps took 1000 s and 120 are left.
    left_s = row(api, study_id)["progress"]["eta_s"]
    assert left_s == pytest.approx(1000, abs=60)
    assert study_progress(api, study_id)["eta_s"] == pytest.approx(1000, abs=60)
    pass_time(api, lease, 400)
    assert row(api, study_id)["progress"]["eta_s"] == pytest.approx(600, abs=60)
    pass_time(api, lease, 4000)
    assert row(api, study_id)["progress"]["eta_s"] == 0


def test_the_time_left_of_a_study_takes_running_and_ended_trials_together(api: ApiServer) -> None:
    study_id = make_study(api.context.database, n_trials=5, max_parallel=2)
    ended = claim(api)
    end(api, ended, "result", result_request(0.5, state="pruned").model_dump(mode="json"))
    first, second = claim(api, slot=1), claim(api, slot=2)
    begun = datetime.now(UTC)
    with api.context.database.transaction() as session:
        trial = session.get_one(Trial, ended.trial_id)
        trial.started_at, trial.finished_at = begun, begun + timedelta(seconds=1000)
    renew(api, first, stage=training(0))
    pass_time(api, first, 600)
    renew(api, first, stage=training(225))  # 600 s for three quarters: 200 s are left
    renew(api, second, stage=training(30))  # no pace yet: nine tenths of 1000 s are left
    # One queued trial begins after 200 s, the other after 900 s and ends at 1900 s.
    progress = study_progress(api, study_id)
    assert progress["eta_s"] == pytest.approx(1900, abs=60)
    assert (progress["done"], progress["share"]) == (1, pytest.approx((1 + 0.75 + 0.1) / 5))


def test_a_paused_study_has_no_time_left_to_tell(api: ApiServer) -> None:
    study_id = make_study(api.context.database, n_trials=2)
    lease = claim(api)
    renew(api, lease, stage=training(0))
    pass_time(api, lease, 100)
    renew(api, lease, stage=training(100))
    assert study_progress(api, study_id)["eta_s"] is not None
    api.client.post(f"/v1/studies/{study_id}/pause")
    assert study_progress(api, study_id)["eta_s"] is None

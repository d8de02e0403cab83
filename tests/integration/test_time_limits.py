"""Time limits: of a study from its first claim without its pauses, of a trial over its attempts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_server import ApiServer, serving
from builders import claim_request, crash_request, make_study, renew_request, result_request
from queue_server import QueueServer, queue_server
from sqlalchemy import text, update

from service.errors import LeaseLostError
from service.store.database import Database
from service.store.tables import Trial
from studies.wire.leases import ReleaseRequest, RenewRequest


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def states(server: QueueServer, study_id: str) -> list[str]:
    server.reconciler.step()
    return [trial.state for trial in server.trials(study_id)]


# -- of a study ----------------------------------------------------------------------------------


def test_a_studys_time_counts_from_its_first_claim(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, timeout_s=600, age_s=1000)
    assert states(server, study_id) == ["queued", "queued"]
    server.claim()
    server.pass_time(500)
    assert states(server, study_id) == ["running", "queued"]
    server.pass_time(200)
    assert states(server, study_id) == ["running", "cancelled"]


def test_time_in_pause_does_not_count_and_time_before_it_does(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, timeout_s=60)
    server.claim()
    server.pass_time(50)
    server.pause(study_id)
    assert 50 <= server.study(study_id).time_used_s < 60
    server.pass_time(1000)
    assert states(server, study_id) == ["running", "queued"]
    server.resume(study_id)
    assert states(server, study_id) == ["running", "queued"]
    server.pass_time(20)
    assert states(server, study_id) == ["running", "cancelled"]


def test_what_is_queued_again_after_the_time_is_up_is_cancelled(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, timeout_s=60)
    good, bad = server.claim(slot=0), server.claim(slot=1)
    server.pass_time(100)
    server.dispatcher.finish(good.trial_id, 1, result_request())
    server.dispatcher.fail(bad.trial_id, 1, crash_request())
    assert server.dispatcher.claim(claim_request()) is None
    assert states(server, study_id) == ["completed", "cancelled"]
    assert server.study(study_id).state == "completed"


def test_an_extension_has_the_whole_time_again(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, timeout_s=60)
    lease = server.claim()
    server.pass_time(100)
    assert states(server, study_id) == ["running", "cancelled"]
    server.extend(study_id, 1)
    assert states(server, study_id) == ["running", "cancelled", "queued"]
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    server.dispatcher.finish(server.claim().trial_id, 1, result_request())
    assert server.study(study_id).state == "completed"
    server.extend(study_id, 1)
    study = server.study(study_id)
    assert (study.time_used_s, study.clock_started_at) == (0, None)
    server.claim()
    server.pass_time(50)
    assert states(server, study_id)[-1] == "running"


def test_a_paused_study_that_is_extended_has_the_whole_time_again(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, timeout_s=60)
    server.claim()
    server.pass_time(50)
    server.pause(study_id)
    server.extend(study_id, 1)
    server.resume(study_id)
    assert server.study(study_id).time_used_s == 0
    server.claim(slot=1)
    server.pass_time(50)
    assert states(server, study_id) == ["running", "running", "queued"]


# -- of a trial ----------------------------------------------------------------------------------


def test_a_trial_past_its_time_fails_and_its_worker_hears_cancel(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, trial_timeout_s=60)
    lease = server.claim()
    server.pass_time(50)
    renew = server.dispatcher.renew
    assert renew(lease.trial_id, 1, renew_request(0.1)).action == "continue"
    server.pass_time(20)
    for _ in range(2):
        assert renew(lease.trial_id, 1, renew_request(0.1, 0.2)).action == "cancel"
    trial = server.trial(lease.trial_id)
    assert (trial.state, trial.error_code) == ("failed", "trial_timeout")
    assert (trial.crashes, trial.lost, trial.leased_since) == (0, 0, None)
    assert trial.error_detail == (
        "It was not done after 60 s over 1 attempt. Raise budget.trial_timeout_s, or search fewer "
        "epochs, shorter sequences or a smaller model."
    )
    assert server.outcomes(lease.trial_id) == ["timed_out"]
    assert server.claim().number == 1
    assert server.study(study_id).state == "running"


def test_every_end_of_a_trial_past_its_time_is_refused(server: QueueServer) -> None:
    make_study(server.database, n_trials=1, trial_timeout_s=60)
    lease = server.claim()
    server.pass_time(100)
    server.dispatcher.renew(lease.trial_id, 1, RenewRequest())
    ends: list[Callable[[], object]] = [
        lambda: server.dispatcher.finish(lease.trial_id, 1, result_request()),
        lambda: server.dispatcher.fail(lease.trial_id, 1, crash_request()),
        lambda: server.dispatcher.release(lease.trial_id, 1, ReleaseRequest()),
    ]
    for end in ends:
        with pytest.raises(LeaseLostError):
            end()
    assert server.study(lease.study_id).error_code == "no_trial_completed"


def test_optuna_hears_of_it_in_a_way_that_steers_the_sampler_away(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=2, trial_timeout_s=60)
    lease = server.claim()
    server.pass_time(100)
    server.dispatcher.renew(lease.trial_id, 1, RenewRequest())
    assert list(server.optuna_states(study_id).values()) == ["PRUNED"]
    with server.database.reading() as session:
        found = text("SELECT value_json FROM trial_system_attributes WHERE key = :key")
        broken = session.execute(found, {"key": "constraints:fits_time"}).scalars().all()
    assert [float(value) for value in broken] == [1.0]
    assert server.trial(lease.trial_id).told


def test_the_time_of_all_attempts_counts_and_waiting_does_not(server: QueueServer) -> None:
    make_study(server.database, n_trials=1, trial_timeout_s=60)
    first = server.claim()
    server.pass_time(25)
    server.dispatcher.release(first.trial_id, 1, ReleaseRequest())
    server.pass_time(1000)
    server.claim()
    server.pass_time(25)
    server.dispatcher.fail(first.trial_id, 2, crash_request())
    third = server.claim()
    assert 50 <= server.trial(first.trial_id).time_used_s < 60
    assert server.dispatcher.renew(third.trial_id, 3, RenewRequest()).action == "continue"
    server.pass_time(25)
    assert server.dispatcher.renew(third.trial_id, 3, RenewRequest()).action == "cancel"
    assert server.outcomes(first.trial_id) == ["released", "crashed", "timed_out"]
    assert "over 3 attempts" in (server.trial(first.trial_id).error_detail or "")


def test_a_worker_that_is_never_heard_of_again_does_not_hide_the_time(server: QueueServer) -> None:
    study_id = make_study(server.database, n_trials=1, trial_timeout_s=60)
    lease = server.claim()
    server.pass_time(100)
    server.let_leases_lapse()
    assert server.reconciler.step().lapsed == 1
    assert server.outcomes(lease.trial_id) == ["timed_out"]
    assert server.trial(lease.trial_id).lost == 0
    assert server.study(study_id).state == "failed"


def test_a_lost_attempt_counts_until_it_was_taken_back_and_again_once_it_is_revived(
    server: QueueServer,
) -> None:
    make_study(server.database, n_trials=1, trial_timeout_s=60)
    lease = server.claim()
    server.pass_time(40)
    server.let_leases_lapse()
    server.reconciler.step()
    assert 40 <= server.trial(lease.trial_id).time_used_s < 50
    server.pass_time(1000)
    assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == "continue"
    server.pass_time(25)
    assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == "cancel"


def test_a_claim_makes_room_by_ending_what_is_past_its_time(server: QueueServer) -> None:
    make_study(server.database, n_trials=2, max_parallel=1, trial_timeout_s=60)
    server.claim("slow")
    server.pass_time(100)
    server.reconciler.step()
    assert server.claim("quick").number == 1


def test_the_evaluation_has_no_limit(server: QueueServer) -> None:
    make_study(server.database, n_trials=1, trial_timeout_s=60, test_rows=True)
    lease = server.claim()
    server.put_model(lease.trial_id)
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    evaluation = server.claim()
    server.pass_time(1000)
    assert server.dispatcher.renew(evaluation.trial_id, 1, RenewRequest()).action == "continue"


def test_an_attempt_that_began_before_there_were_limits_has_none(server: QueueServer) -> None:
    make_study(server.database, n_trials=1, trial_timeout_s=1e-6)
    lease = server.claim()
    with server.database.transaction() as session:
        session.execute(update(Trial).values(leased_since=None))
    assert server.dispatcher.renew(lease.trial_id, 1, RenewRequest()).action == "continue"
    assert server.dispatcher.finish(lease.trial_id, 1, result_request()).state == "completed"


def test_without_a_limit_the_time_is_counted_all_the_same(server: QueueServer) -> None:
    make_study(server.database, n_trials=1)
    lease = server.claim()
    server.pass_time(1000)
    server.dispatcher.finish(lease.trial_id, 1, result_request())
    trial = server.trial(lease.trial_id)
    assert (trial.state, trial.leased_since) == ("completed", None)
    assert 1000 <= trial.time_used_s < 1060


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home") as server:
        yield server


def test_a_file_of_a_trial_past_its_time_is_refused(api: ApiServer) -> None:
    study = api.submit(
        dataset=api.upload(), budget={"n_trials": 1, "trial_timeout_s": 60}, pruner="none"
    )
    claimed = api.client.post("/v1/leases", json=claim_request().model_dump(mode="json")).json()
    with api.context.database.transaction() as session:
        session.execute(update(Trial).values(leased_since=Trial.leased_since - 100))
    url = f"/v1/leases/{claimed['trial_id']}/1"
    answer = api.client.put(f"{url}/artifacts/model.zip", content=b"late")
    assert (answer.status_code, answer.json()["error"]) == (409, "lease_lost")
    assert api.client.put(url, json={}).json()["action"] == "cancel"
    trial = api.get(f"/v1/studies/{study['id']}/trials/0")
    assert trial["error"]["code"] == "trial_timeout"

"""What scenarios wait for is what they mean."""

from pathlib import Path

from builders import make_study, renew_request
from chaos.progress import fewest_epochs
from queue_server import queue_server

from service.store.database import Database


def test_a_running_trial_that_has_reported_nothing_is_the_one_with_the_fewest_epochs(
    database: Database, tmp_path: Path
) -> None:
    with queue_server(database, tmp_path) as server:
        study_id = make_study(database, n_trials=2)
        first, second = (server.claim(slot=slot) for slot in range(2))
        server.dispatcher.renew(first.trial_id, first.attempt, renew_request(0.1, 0.2, 0.3))
        assert fewest_epochs(database, study_id) == 0
        server.dispatcher.renew(second.trial_id, second.attempt, renew_request(0.1))
        assert fewest_epochs(database, study_id) == 1

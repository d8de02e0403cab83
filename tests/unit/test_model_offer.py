"""When a trial's model is offered: with the report of its last epoch, where that is the last."""

import pytest

from service.worker.model_offer import ModelOffer


@pytest.mark.parametrize(("direction", "best"), [("maximize", 0.7), ("minimize", 0.5)])
def test_the_value_of_the_last_epoch_is_the_best_of_all(direction: str, best: float) -> None:
    offer = ModelOffer({"metric": "accuracy", "direction": direction, "epochs": 3})
    values = [
        offer.value_after(epoch, {"accuracy": value, "loss": 9.0})
        for epoch, value in enumerate((0.6, 0.7, 0.5))
    ]
    assert values == [None, None, best]


def test_epochs_without_a_finite_value_count_for_nothing() -> None:
    offer = ModelOffer({"metric": "accuracy", "direction": "maximize", "epochs": 2})
    assert offer.value_after(0, {"accuracy": 0.6}) is None
    assert offer.value_after(1, {"loss": 1.0}) == 0.6
    nothing = ModelOffer({"metric": "accuracy", "direction": "maximize", "epochs": 1})
    assert nothing.value_after(0, {"loss": 1.0}) is None


def test_an_answer_holds_for_the_value_that_was_asked_about() -> None:
    offer = ModelOffer({"metric": "accuracy", "direction": "maximize", "epochs": 1})
    assert offer.answer(0.6) is None
    offer.note(0.6, "keep_model")
    assert (offer.answer(0.6), offer.answer(0.5), offer.answer(None)) == (True, None, None)
    offer.note(0.6, "continue")
    assert offer.answer(0.6) is False

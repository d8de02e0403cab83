"""What a study asks of its model beyond its sequence length: layers to freeze, and the like."""

from model.architecture import check_model_allows
from model.config import Scalar
from studies.resolution import ResolvedStudy
from studies.space import Choices


def check_model_limits(resolved: ResolvedStudy, *, model_type: str, layers: int) -> None:
    """Raise `InputError` ``invalid_value`` for a setting that the model cannot be trained with,
    whether it is fixed or may be drawn."""

    def check(name: str, value: Scalar | None, where: tuple[str | int, ...]) -> None:
        check_model_allows(name, value, model_type=model_type, layers=layers, where=where)

    for name, fixed in resolved.training.items():
        check(name, fixed, ("training", name))
    for name, parameter in resolved.search_space.items():
        place = ("search_space", name)
        if isinstance(parameter, Choices):
            for index, choice in enumerate(parameter.choices):
                check(name, choice, (*place, "choices", index))
        else:
            check(name, parameter.low, (*place, "low"))
            check(name, parameter.high, (*place, "high"))

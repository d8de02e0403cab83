"""Which values of a setting a given model can be trained with. Torch-free, so that the server
refuses them before a trial runs."""

from model.config import Scalar
from model.errors import InputError


def check_model_allows(
    name: str,
    value: Scalar | None,
    *,
    model_type: str,
    layers: int,
    where: tuple[str | int, ...],
) -> None:
    """Raise `InputError` ``invalid_value`` where a model of this type and depth cannot do it."""
    if (name, value) in (("freeze_layers", 0), ("layer_decay", 1)):
        return
    if name in ("freeze_layers", "layer_decay") and model_type == "albert":
        off = 0 if name == "freeze_layers" else 1
        detail = f"The layers of an albert model share their weights; leave {name} at {off}."
        raise InputError("invalid_value", detail, where)
    if name == "freeze_layers" and isinstance(value, int) and value > layers:
        detail = f"freeze_layers {value} is more than the model's {layers} layers."
        raise InputError("invalid_value", detail, where)

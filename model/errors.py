"""The one error that bad input raises, from the reader up to the HTTP edge.

It carries what a person needs to mend the input: a stable code, a sentence that says what is
wrong and what to do, and the place (a field path, a column, a row).
"""


class InputError(ValueError):
    """Input that cannot be used as it stands.

    ``code`` is snake_case and stable (one README row each); ``where`` is the path to the field,
    for example ``("search_space", "batch_size")`` or ``("train", "line 12")``.
    """

    def __init__(self, code: str, detail: str, where: tuple[str | int, ...] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.where = where


class TrainingError(RuntimeError):
    """A training run that cannot go on: ``code`` is ``out_of_memory``, ``nan_loss``, …"""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

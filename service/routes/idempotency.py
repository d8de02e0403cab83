"""The header under which a repeated request counts once."""

from typing import Annotated

from fastapi import Header

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Sent again with the same body, it changes nothing and answers the same",
    ),
]

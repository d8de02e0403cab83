"""Logging a browser in, on the wire."""

from studies.wire.base import Answer, Utc


class LoginLink(Answer):
    """A link that logs one browser in, once."""

    url: str
    """Relative to the server's address."""
    expires_at: Utc

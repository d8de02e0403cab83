"""Signatures of webhooks: how the server signs, and how a receiver checks.

from studies.webhooks import verify

event = verify(request.body, request.headers["Bertune-Signature"], secret)
"""

import hashlib
import hmac
import json
import time
from typing import Any

SIGNATURE_HEADER = "Bertune-Signature"
DELIVERY_HEADER = "Bertune-Delivery"
"""The same at every attempt: a receiver that has seen it need do nothing."""
EVENT_HEADER = "Bertune-Event"
ATTEMPT_HEADER = "Bertune-Attempt"
TOLERANCE_S = 300.0
"""How old a signature may be: what was recorded on its way cannot be sent again later."""


class SignatureError(ValueError):
    """A request that the server did not sign with this secret, or that is too old."""


def sign(body: bytes, secret: str, timestamp: int) -> str:
    """The header's value: HMAC-SHA256 over the timestamp, a full stop and the body."""
    message = b"%d." % timestamp + body
    digest = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def verify(
    body: bytes,
    signature: str,
    secret: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Any:
    """Check a request and return its body: the JSON document, or a text that is none.

    ``body`` is what arrived, byte for byte. Raises `SignatureError`.
    """
    parts = [part.partition("=")[::2] for part in signature.split(",")]
    stamps = [value for name, value in parts if name.strip() == "t"]
    given = [value.strip() for name, value in parts if name.strip() == "v1"]
    if len(stamps) != 1 or not (stamps[0].isascii() and stamps[0].isdigit()) or not given:
        raise SignatureError("The header does not read t=SECONDS,v1=SIGNATURE.")
    timestamp = int(stamps[0])
    expected = sign(body, secret, timestamp).partition("v1=")[2].encode()
    if not any(hmac.compare_digest(expected, each.encode()) for each in given):
        raise SignatureError("The signature is not of this body and secret.")
    if abs((time.time() if now is None else now) - timestamp) > tolerance_s:
        raise SignatureError(f"The signature is older than {tolerance_s:g} s, or of the future.")
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")

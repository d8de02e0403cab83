"""What a receiver may trust: the secret, the body, and the time it was signed."""

import hashlib
import hmac

import pytest

from studies.webhooks import SignatureError, sign, verify

SECRET = "whsec_0123456789abcdef"
BODY = b'{"type": "study.completed"}'
NOW = 1_800_000_000


def test_a_signature_is_the_hmac_of_the_time_a_full_stop_and_the_body() -> None:
    digest = hmac.new(SECRET.encode(), b"1800000000." + BODY, hashlib.sha256).hexdigest()
    assert sign(BODY, SECRET, NOW) == f"t=1800000000,v1={digest}"


def test_a_body_that_was_signed_is_read() -> None:
    assert verify(BODY, sign(BODY, SECRET, NOW), SECRET, now=NOW) == {"type": "study.completed"}
    text = "größer".encode()
    assert verify(text, sign(text, SECRET, NOW), SECRET, now=NOW) == "größer"


def test_of_several_signatures_one_must_be_right() -> None:
    both = sign(BODY, SECRET, NOW) + ",v1=" + "0" * 64
    assert verify(BODY, both, SECRET, now=NOW)


@pytest.mark.parametrize(
    ("body", "signature", "now"),
    [
        (BODY + b" ", sign(BODY, SECRET, NOW), NOW),
        (BODY, sign(BODY, "another secret!!", NOW), NOW),
        (BODY, sign(BODY, SECRET, NOW).replace("t=18", "t=19"), NOW + 100_000_000),
        (BODY, sign(BODY, SECRET, NOW), NOW + 301),
        (BODY, sign(BODY, SECRET, NOW), NOW - 301),
        (BODY, "", NOW),
        (BODY, "v1=abc", NOW),
        (BODY, f"t={NOW}", NOW),
        (BODY, f"t={NOW},v1=größer", NOW),
        (BODY, sign(BODY, SECRET, NOW) + f",t={NOW}", NOW),
    ],
)
def test_anything_else_is_refused(body: bytes, signature: str, now: float) -> None:
    with pytest.raises(SignatureError):
        verify(body, signature, SECRET, now=now)

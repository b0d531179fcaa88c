"""Signatures of webhooks: over the bytes, by any of our secrets, within 5 minutes of now in both directions."""

from datetime import UTC, datetime, timedelta

import pytest

from flusher.webhooks.signature import TOLERANCE_S, verify
from sidecar.contract.codes import TaximeterError
from tests.stripe_stand_in.webhooks import sign

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
BODY = b'{"id": "evt_1", "odd": "\xff\xfe"}'


@pytest.mark.parametrize("apart_s", [0, TOLERANCE_S, -TOLERANCE_S])
def test_a_signature_of_now_is_taken(apart_s: int) -> None:
    verify(BODY, sign(BODY, "whsec_1", at=AT + apart_s), ["whsec_1"], NOW)


@pytest.mark.parametrize("apart_s", [TOLERANCE_S + 1, -TOLERANCE_S - 1, 10**9])
def test_one_of_another_time_is_not_whichever_way(apart_s: int) -> None:
    with pytest.raises(TaximeterError, match="ahead of" if apart_s > 0 else "behind") as refused:
        verify(BODY, sign(BODY, "whsec_1", at=AT + apart_s), ["whsec_1"], NOW)
    assert refused.value.code == "signature_invalid"


def test_either_secret_is_good_while_one_takes_the_others_place() -> None:
    for signed_by, known in ((["old"], ["new", "old"]), (["old", "new"], ["new"])):
        verify(BODY, sign(BODY, *signed_by, at=AT), known, NOW)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"t={AT}",
        f"t={AT},v1=",
        f"t={AT},v0={'0' * 64}",
        f"t={AT},v1={'0' * 64}",
        f"t={AT},v1={'é' * 64}",
        f"v1={'0' * 64}",
        sign(BODY, "another", at=AT),
        sign(BODY + b" ", "whsec_1", at=AT),
        sign(BODY, "whsec_1", at=AT).replace("v1=", "v2="),
        f"t={AT + 1}," + sign(BODY, "whsec_1", at=AT),
        sign(BODY, "whsec_1", at=AT).replace(f"t={AT}", f"t={AT + 1}"),
        "x=," * 2000 + sign(BODY, "whsec_1", at=AT),
    ],
)
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(TaximeterError) as refused:
        verify(BODY, header, ["whsec_1"], NOW)
    assert refused.value.code == "signature_invalid"
    assert "whsec_1" not in str(refused.value)


def test_a_delivery_stays_good_for_five_minutes_and_no_longer() -> None:
    header = sign(BODY, "whsec_1", at=AT)
    verify(BODY, header, ["whsec_1"], NOW + timedelta(minutes=5))
    with pytest.raises(TaximeterError):
        verify(BODY, header, ["whsec_1"], NOW + timedelta(minutes=5, seconds=1))

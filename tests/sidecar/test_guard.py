"""Who may use the TCP listener: tokens, and no page of a foreign site."""

import hashlib
from pathlib import Path

import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address
from sidecar.guard import Guard, read_tokens
from tests.sidecar.conftest import Serve, Served

TOKEN = "t" * 40
OTHER = "o" * 40
LOOPBACK = Address("127.0.0.1", 8130)
ANYWHERE = Address("0.0.0.0", 8130)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def refusal(guard: Guard, path: str = "/v1/events", **headers: str) -> str | None:
    try:
        guard.check(path, headers)
    except TaximeterError as error:
        return error.code
    return None


class TestHost:
    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:8130", "LOCALHOST", "127.0.0.1:8130", "[::1]:8130", "[::1]", ""]
    )
    def test_this_machine_is_let_in(self, host: str) -> None:
        assert refusal(Guard(LOOPBACK), Host=host) is None

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8130", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"]
    )
    def test_a_name_that_was_bound_anew_to_this_machine_is_not(self, host: str) -> None:
        assert refusal(Guard(LOOPBACK), Host=host) == "forbidden"

    def test_beyond_this_machine_any_name_may_lead_here(self) -> None:
        assert refusal(Guard(ANYWHERE), Host="sidecar.metering.svc:8130") is None


class TestOrigin:
    def test_a_page_of_this_very_address_is_let_in(self) -> None:
        assert refusal(Guard(LOOPBACK), Host="localhost:8130", Origin="http://localhost:8130") is None

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "null", ""])
    @pytest.mark.parametrize("address", [LOOPBACK, ANYWHERE])
    def test_a_page_of_another_site_is_not(self, origin: str, address: Address) -> None:
        assert refusal(Guard(address), Host="localhost:8130", Origin=origin) == "forbidden"


class TestTokens:
    def test_without_a_token_file_none_is_asked_for(self) -> None:
        assert refusal(Guard(LOOPBACK)) is None

    @pytest.mark.parametrize("token", [TOKEN, OTHER])
    def test_each_of_several_is_good_while_they_are_changed(self, token: str) -> None:
        guard = Guard(LOOPBACK, (digest(TOKEN), digest(OTHER)))

        assert refusal(guard, Authorization=f"Bearer {token}") is None
        assert refusal(guard, Authorization=f"bearer  {token}") is None

    @pytest.mark.parametrize(
        "authorization",
        ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \udcff", f"Bearer {TOKEN[:-1]}"],
    )
    def test_anything_else_is_unauthorized(self, authorization: str) -> None:
        assert refusal(Guard(LOOPBACK, (digest(TOKEN),)), Authorization=authorization) == "unauthorized"

    @pytest.mark.parametrize("path", ["/v1/events", "/track", "/v1/usage", "/metrics", "/openapi.json", "/nowhere"])
    def test_every_path_but_the_probes_asks_for_one(self, path: str) -> None:
        assert refusal(Guard(LOOPBACK, (digest(TOKEN),)), path) == "unauthorized"

    @pytest.mark.parametrize("path", ["/livez", "/readyz"])
    def test_probes_need_none(self, path: str) -> None:
        assert refusal(Guard(LOOPBACK, (digest(TOKEN),)), path) is None


class TestTokenFiles:
    def test_a_line_is_a_token(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens"
        file.write_text(f"\n{TOKEN}\n{OTHER}  \n")

        assert read_tokens(file) == (digest(TOKEN), digest(OTHER))

    @pytest.mark.parametrize(
        "text", ["", "\n\n", "short", "é" * 40, "a b" * 20, "\n".join(f"{number:040}" for number in range(17))]
    )
    def test_a_file_that_cannot_be_used_is_refused(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "tokens"
        file.write_text(text)

        with pytest.raises(TaximeterError) as raised:
            read_tokens(file)

        assert raised.value.code == "config_invalid"
        assert text.strip() not in raised.value.message or not text.strip()

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TaximeterError, match=r"--token-file: .* can't be read"):
            read_tokens(tmp_path / "nowhere")


class TestOverTheWire:
    async def test_tcp_is_guarded_and_the_unix_socket_is_not(self, serve: Serve) -> None:
        served = await serve(tokens=(digest(TOKEN),))

        async with served.http.get("/metrics") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert (await response.json(content_type=None))["code"] == "unauthorized"
        async with served.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200
        async with served.unix.get("/metrics") as response:
            assert response.status == 200

    async def test_a_foreign_host_is_403_on_tcp(self, served: Served) -> None:
        async with served.http.get("/metrics", headers={"Host": "evil.example"}) as response:
            assert response.status == 403
        async with served.unix.get("/metrics", headers={"Host": "evil.example"}) as response:
            assert response.status == 200

    async def test_a_refused_request_submits_nothing(self, served: Served) -> None:
        headers = {"Origin": "http://evil.example", "Content-Type": "application/json"}
        async with served.http.post(
            "/v1/events", data=b'{"user_id":"a","event_type":"t"}', headers=headers
        ) as response:
            assert response.status == 403
        assert served.core.submitted == []

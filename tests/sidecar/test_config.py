"""Settings: where they come from, what is refused, and that every one of them is documented."""

import re
from pathlib import Path

import pytest

from sidecar.config import Settings, settings_from
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address, describe

README = Path(__file__).parents[2] / "sidecar" / "README.md"
NEEDED = {"TAXIMETER_REDIS_URL": "redis://localhost:6379", "TAXIMETER_JOURNAL_DIR": "/var/lib/taximeter"}


def test_what_is_left_out_has_the_documented_default() -> None:
    settings = settings_from({}, NEEDED)

    assert settings.http == Address("127.0.0.1", 8130)
    assert settings.socket is None
    assert settings.body_bytes_max == 8 * 1024 * 1024
    assert settings.request_events_max == 10_000
    assert settings.read_deadline_s == 5
    assert settings.connections_max == 1024
    assert settings.journal_bytes_max == 1024**3
    assert settings.journal_hold_s == 3600
    assert settings.dedupe_ttl_s == 86_400


def test_a_flag_goes_before_a_variable() -> None:
    settings = settings_from({"http": "127.0.0.1:1", "socket": None}, {**NEEDED, "TAXIMETER_HTTP": "127.0.0.1:2"})

    assert settings.http == Address("127.0.0.1", 1)


def test_the_common_name_of_redis_is_good_enough() -> None:
    environment = {"REDIS_URL": "unix:///run/redis.sock", "TAXIMETER_JOURNAL_DIR": "/j"}

    assert settings_from({}, environment).redis_url == "unix:///run/redis.sock"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("http", "[::1]:80", Address("::1", 80)),
        ("socket_mode", "0600", 0o600),
        ("socket_mode", "777", 0o777),
        ("journal_bytes_max", "2GiB", 2 * 1024**3),
        ("journal_bytes_max", "200000000", 200_000_000),
        ("ack_deadline_s", "0.25", 0.25),
        ("http_open", "Yes", True),
        ("log_level", "DEBUG", "debug"),
    ],
)
def test_values_are_read(name: str, text: str, value: object) -> None:
    assert getattr(settings_from({name: text}, NEEDED), name) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("http", "8130", "--http: expected HOST:PORT, got '8130'"),
        ("http", "localhost:99999", "--http: expected HOST:PORT, got 'localhost:99999'"),
        ("http", "localhost:٣", "--http: expected HOST:PORT"),
        ("redis_url", "localhost:6379", "--redis-url: expected redis://HOST:PORT"),
        ("redis_url", "http://user:secret@host", "--redis-url: expected redis://HOST:PORT"),
        ("redis_url", "", "--redis-url or TAXIMETER_REDIS_URL: expected URL"),
        ("journal_dir", "", "--journal-dir or TAXIMETER_JOURNAL_DIR: expected directory"),
        ("socket_mode", "999", "--socket-mode: expected an octal file mode such as 0660, got '999'"),
        ("ack_deadline_s", "-1", "--ack-deadline-s: expected seconds from 0 to 60, got '-1'"),
        ("ack_deadline_s", "nan", "--ack-deadline-s: expected seconds from 0 to 60, got 'nan'"),
        ("read_deadline_s", "0", "--read-deadline-s: expected seconds from 0.1 to 300, got '0'"),
        ("request_events_max", "10001", "--request-events-max: expected a number from 1 to 10000, got '10001'"),
        ("body_bytes_max", "8MB", "--body-bytes-max: expected bytes from"),
        ("http_open", "maybe", "--http-open: expected true or false, got 'maybe'"),
        ("log_level", "loud", "--log-level: expected one of debug, info, warning, error, got 'loud'"),
        ("http", "", "--http, --socket: expected an address or a socket, both are empty"),
        ("http", "0.0.0.0:8130", "--http: 0.0.0.0:8130 can be reached from other machines; name a --token-file"),
        ("http", "[::]:8130", "--http: [::]:8130 can be reached from other machines"),
        ("journal_segment_bytes", "600MiB", "--journal-segment-bytes: expected at most half"),
        ("body_bytes_max", "128MiB", "--waiting-bytes-max: expected at least --body-bytes-max"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, text: str, message: str) -> None:
    with pytest.raises(TaximeterError) as raised:
        settings_from({name: text}, NEEDED)

    assert raised.value.code == "config_invalid"
    assert message in raised.value.message
    assert "secret" not in raised.value.message


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(TaximeterError) as raised:
        settings_from({"http": "x"}, {"TAXIMETER_SOCKET_MODE": "x"})

    for name in ("--redis-url", "--journal-dir", "--http", "TAXIMETER_SOCKET_MODE"):
        assert name in raised.value.message


@pytest.mark.parametrize("consent", [{"token_file": "/run/tokens"}, {"http_open": "true"}])
def test_beyond_this_machine_takes_a_token_or_consent(consent: dict[str, str]) -> None:
    assert settings_from({"http": "0.0.0.0:8130", **consent}, NEEDED).http == Address("0.0.0.0", 8130)


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)` \| `(TAXIMETER_[A-Z_]+)` \| (.*?) \|", README.read_text("utf-8"), re.MULTILINE
    )

    expected = [
        (described.flag, described.variable, {None: "required", "": "none"}.get(default, f"`{default}`"))
        for described in describe(Settings)
        for default in [described.setting.default]
    ]
    assert rows == expected

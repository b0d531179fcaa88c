"""The flusher's settings: where they come from, what is refused, and that every one of them is documented."""

import re
from pathlib import Path

import pytest

from flusher.config import Settings, settings_from
from flusher.summed import KeyedRows
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address, describe

README = Path(__file__).parents[2] / "flusher" / "README.md"
NEEDED = {"TAXIMETER_REDIS_URL": "redis://localhost", "TAXIMETER_DATABASE_URL": "postgresql://localhost/x"}


def test_what_is_left_out_has_the_documented_default() -> None:
    settings = settings_from({}, NEEDED)
    assert settings.flush_interval_s == 0.5
    assert settings.health_http == Address("127.0.0.1", 8131)
    assert settings.log_level == "info"
    assert (settings.claims_keep_days, settings.events_keep_days) == (35, None)


def test_flags_go_before_variables_and_ours_before_the_common_ones() -> None:
    environment = NEEDED | {"DATABASE_URL": "postgresql://other/x", "TAXIMETER_FLUSH_INTERVAL_S": "2"}
    settings = settings_from({"flush_interval_s": "3", "health_http": ""}, environment)
    assert settings.flush_interval_s == 3
    assert settings.health_http is None
    assert settings.database_url == "postgresql://localhost/x"
    del environment["TAXIMETER_DATABASE_URL"]
    assert settings_from({}, environment).database_url == "postgresql://other/x"


def test_events_are_kept_for_a_number_of_days_or_forever() -> None:
    assert settings_from({"events_keep_days": "100"}, NEEDED).events_keep_days == 100
    assert settings_from({"events_keep_days": "forever"}, NEEDED).events_keep_days is None


def test_keyed_events_are_kept_one_by_one_or_summed_up() -> None:
    assert settings_from({}, NEEDED).keyed_rows is KeyedRows.SINGLE
    assert settings_from({}, NEEDED | {"TAXIMETER_KEYED_ROWS": "summed"}).keyed_rows is KeyedRows.SUMMED


@pytest.mark.parametrize("url", ["postgres://h/x", "postgresql:///x?host=/run", "host=/run dbname=x"])
def test_a_database_may_be_named_in_every_form_of_libpq(url: str) -> None:
    assert settings_from({"database_url": url}, NEEDED).database_url == url


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("database_url", "mysql://user:secret@h/x", "--database-url: expected postgresql://USER@HOST/NAME, got mysql"),
        ("database_url", "localhost", "--database-url: expected postgresql://USER@HOST/NAME, got no scheme"),
        ("database_url", "", "--database-url or TAXIMETER_DATABASE_URL: expected URL"),
        ("redis_url", "localhost", "--redis-url: expected redis://HOST:PORT"),
        ("redis_url", "redis://:secret@host:port", "--redis-url: expected redis://HOST:PORT, got a host or a port"),
        ("redis_url", "redis://[::1", "--redis-url: expected redis://HOST:PORT, got a host or a port"),
        ("flush_interval_s", "0", "--flush-interval-s: expected seconds from 0.01 to 60, got '0'"),
        ("flush_interval_s", "1e0", "--flush-interval-s: expected seconds from 0.01 to 60, got '1e0'"),
        ("claims_keep_days", "0", "--claims-keep-days: expected days from 1 to 3650, got '0'"),
        ("events_keep_days", "99", "--events-keep-days: expected days from 100 to 36500, got '99'; or forever"),
        ("keyed_rows", "all", "--keyed-rows: expected single or summed, got 'all'"),
        ("health_http", "8131", "--health-http: expected HOST:PORT, got '8131'"),
        ("log_level", "loud", "--log-level: expected one of debug, info, warning, error, got 'loud'"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, text: str, message: str) -> None:
    with pytest.raises(TaximeterError) as raised:
        settings_from({name: text}, NEEDED)
    assert raised.value.code == "config_invalid"
    assert message in raised.value.message
    assert "secret" not in raised.value.message


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)` \| `(TAXIMETER_[A-Z_]+)` \| (.*?) \|", README.read_text("utf-8"), re.MULTILINE
    )
    assert rows == [
        (described.flag, described.variable, "required" if default is None else f"`{default}`")
        for described in describe(Settings)
        for default in [described.setting.default]
    ]

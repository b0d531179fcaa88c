"""`taximeter price`: every key of a price is an option, and every bad one is named."""

import json

import pytest

from flusher.cli.main import main

ARTICLE = '[{"up_to": 1000, "unit_price": "0"}, {"up_to": 10000, "unit_price": "0.01"}, {"unit_price": "0.005"}]'
STEPS = '[{"up_to": 100, "flat_fee": 10}, {"flat_fee": 25}]'
MATRIX = '[{"match": {"region": "eu"}, "unit_price": "2"}, {"match": {}, "unit_price": "5"}]'
GROUPS = '[{"group": {"region": "eu"}, "quantity": "3"}, {"group": {"region": "us"}, "quantity": 4}]'


def price(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, object]:
    assert main(["price", "--json", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    assert isinstance(report, dict)
    return report


def test_the_articles_price_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = price(capsys, "--model", "graduated", "--tiers", ARTICLE, "--quantity", "12345", "--currency", "usd")
    assert report["total"] == "101.73"
    lines = report["lines"]
    assert isinstance(lines, list)
    assert [line["amount"] for line in lines] == ["0.00", "90.00", "11.73"]
    assert {key: lines[2][key] for key in ("kind", "meter", "tier", "description", "quantity", "unit_price")} == {
        "kind": "usage",
        "meter": "usage",
        "tier": 3,
        "description": "usage, 2,345 units above 10,000",
        "quantity": "2345",
        "unit_price": "0.005",
    }


@pytest.mark.parametrize(
    ("flags", "total"),
    [
        (["--model", "per_unit", "--unit-price", "0.005", "--quantity", "3"], "0.02"),
        (["--model", "per_unit", "--unit-price", "0.005", "--quantity", "1", "--rounding", "half_even"], "0.00"),
        (["--model", "per_unit", "--unit-price", "2", "--quantity", "5", "--free-units", "1.5"], "7.00"),
        (["--model", "per_unit", "--unit-price", "2", "--quantity", "-5"], "0.00"),
        (["--model", "per_unit", "--unit-price", "2", "--quantity", "5", "--per-group"], "10.00"),
        (["--model", "volume", "--tiers", ARTICLE, "--quantity", "10001"], "50.01"),
        (["--model", "graduated", "--tiers", '[{"unit_price": 0.1, "flat_fee": 5}]', "--quantity", "1"], "5.10"),
        (["--model", "package", "--package-size", "100", "--package-price", "5", "--quantity", "101"], "10.00"),
        (["--model", "fixed", "--amount", "1200", "--currency", "jpy"], "1200"),
        (["--model", "fixed", "--amount", "1.005", "--currency", "KWD", "--charge", "in_advance"], "1.010"),
        (["--model", "graduated", "--tiers", ARTICLE, "--quantity", "0"], "0.00"),
        (["--model", "stairstep", "--tiers", STEPS, "--quantity", "101"], "25.00"),
        (["--model", "percentage", "--rate", "1.2", "--fee-per-event", "0.1", "--quantity", "50"], "0.70"),
        (["--model", "percentage", "--rate", "1.2", "--fee-per-event", "0.1", "--events", "[50, 50.5]"], "1.41"),
        (["--model", "percentage", "--rate", "1", "--events", '["5", "5"]', "--free-events", "1"], "0.05"),
        (["--model", "percentage", "--rate", "1", "--events", "[5, 500]", "--minimum-per-event", "1"], "6.00"),
        (["--model", "percentage", "--rate", "1", "--events", "[5, 500]", "--maximum-per-event", "1"], "1.05"),
        (
            [
                "--model",
                "graduated_percentage",
                "--tiers",
                '[{"up_to": 9, "rate": 10}, {"flat_fee": 1}]',
                "--quantity",
                "9.5",
            ],
            "1.90",
        ),
        (["--model", "matrix", "--prices", MATRIX, "--quantities", GROUPS], "26.00"),
        (["--model", "matrix", "--prices", MATRIX, "--quantities", GROUPS, "--free-units", "3"], "20.00"),
        (["--model", "matrix", "--prices", MATRIX, "--quantity", "5"], "25.00"),
        (
            [
                *("--model", "matrix", "--prices", '[{"match": {"region": "eu"}, "unit_price": "2"}]'),
                *("--unmatched", "free", "--quantities", GROUPS, "--per-group"),
            ],
            "6.00",
        ),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "0", "--minimum", "5"], "5.00"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "9", "--maximum", "5"], "5.00"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--minimum", "5", "--days", "1/2"], "5.00"),
        (
            [
                "--model",
                "per_unit",
                "--unit-price",
                "1",
                "--quantity",
                "1",
                "--minimum",
                "5",
                "--days",
                "1/2",
                "--prorate",
            ],
            "2.50",
        ),
        (["--model", "fixed", "--amount", "31", "--days", "15/31", "--interval", "year"], "15.00"),
    ],
)
def test_every_model_has_its_options(capsys: pytest.CaptureFixture[str], flags: list[str], total: str) -> None:
    assert price(capsys, *flags)["total"] == total


def test_names_are_options_too(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--meter", "m", "--name", "calls"]
    lines = price(capsys, *flags)["lines"]
    assert isinstance(lines, list)
    (line,) = lines
    assert (line["meter"], line["price"], line["description"]) == ("m", "calls", "calls, 1 unit")


def test_a_person_gets_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["price", "--model", "graduated", "--tiers", ARTICLE, "--quantity", "12345"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "            0.00  usage, first 1,000 units",
        "           90.00  usage, next 9,000 units",
        "           11.73  usage, 2,345 units above 10,000",
        "          101.73  total, USD",
    ]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model", "flat", "--quantity", "1"], '--model: expected one of "fixed"'),
        (["--model", "stairstep", "--quantity", "1"], "--tiers: expected an array of tables, it is missing"),
        (["--model", "per_unit", "--unit-price", "1"], "--quantity: expected what was used, it is missing"),
        (["--model", "per_unit", "--quantity", "1"], "--unit-price: expected an amount"),
        (["--model", "per_unit", "--unit-price", "-1", "--quantity", "1"], "--unit-price: expected 0 or more"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1e3"], "--quantity: expected a decimal"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "NaN"], "--quantity: expected a decimal"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "--5"], ""),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "0.0000000001"], "9 fractional digits"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--currency", "zzz"], "--currency: expected"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--rounding", "up"], "--rounding: expected"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--tiers", "[]"], "--tiers: unknown key"),
        (["--model", "fixed", "--amount", "1", "--quantity", "1"], "--quantity: expected none for a fixed fee"),
        (["--model", "fixed", "--amount", "1", "--charge", "now"], "--charge: expected one of"),
        (["--model", "graduated", "--quantity", "1"], "--tiers: expected an array of tables, it is missing"),
        (["--model", "graduated", "--quantity", "1", "--tiers", "[{"], "--tiers: expected JSON"),
        (["--model", "graduated", "--quantity", "1", "--tiers", "[" * 100_000], "--tiers: expected JSON"),
        (["--model", "graduated", "--quantity", "1", "--tiers", "{}"], "--tiers: expected an array of tables"),
        (
            [
                "--model",
                "graduated",
                "--quantity",
                "1",
                "--tiers",
                '[{"up_to": NaN, "unit_price": 1}, {"flat_fee": 1}]',
            ],
            "--tiers: tiers[0].up_to: expected a quantity below",
        ),
        (
            ["--model", "volume", "--quantity", "1", "--tiers", '[{"unit_price": "1", "up_to": 5}]'],
            "--tiers: tiers[0].up_to: expected none in the last tier",
        ),
        (
            ["--model", "package", "--quantity", "1", "--package-size", "0", "--package-price", "1"],
            "--package-size: expected a quantity above 0",
        ),
        (["--quantity", "1"], "--model"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--minimum", "x"], "--minimum: expected"),
        (
            ["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--minimum", "5", "--maximum", "4"],
            "--minimum: expected at most the maximum, 4",
        ),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--rate", "1"], "--rate: unknown key"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--interval", "hour"], "--interval: expected"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--days", "32/31"], "--days: expected"),
        (["--model", "per_unit", "--unit-price", "1", "--quantity", "1", "--events", "[1]"], "got --quantity and --ev"),
        (["--model", "fixed", "--amount", "1", "--events", "[1]"], "--events: expected none for a fixed fee"),
        (["--model", "percentage", "--rate", "1", "--events", "[1"], "--events: expected JSON"),
        (["--model", "percentage", "--rate", "1", "--events", "{}"], "--events: expected an array of decimals"),
        (["--model", "percentage", "--rate", "1", "--events", '["1e3"]'], "--events: expected a decimal below"),
        (["--model", "percentage", "--rate", "1", "--events", "[true]"], "--events: expected a decimal below"),
        (["--model", "percentage", "--rate", "1e1", "--events", "[1]"], "--rate: expected percent below 10^6"),
        (["--model", "percentage", "--rate", "1", "--events", "[1]", "--free-events", "-1"], "--free-events: expected"),
        (
            ["--model", "percentage", "--rate", "1", "--events", "[1]", "--free-events", "1", "--free-units", "1"],
            "--free-units: expected none beside free_events",
        ),
        (["--model", "matrix", "--prices", MATRIX, "--quantities", "[1]"], "--quantities: expected an array such as"),
        (["--model", "matrix", "--prices", MATRIX, "--quantities", "["], "--quantities: expected JSON"),
        (["--model", "matrix", "--prices", '[{"match": {"a": 1}, "unit_price": 1}]', "--quantity", "1"], "match = {}"),
        (["--model", "matrix", "--prices", MATRIX, "--quantity", "1", "--unmatched", "x"], "--unmatched: expected one"),
    ],
)
def test_a_bad_flag_is_wrong_use_and_named(capsys: pytest.CaptureFixture[str], flags: list[str], says: str) -> None:
    try:
        status = main(["price", *flags])
    except SystemExit as error:  # argparse ends the program itself
        status = int(error.code or 0)
    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert says in shown.err


def test_every_bad_flag_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "per_unit", "--unit-price", "x", "--quantity", "x", "--currency", "x", "--rounding", "x"]
    assert main(["price", *flags]) == 2
    shown = capsys.readouterr().err
    assert [flag for flag in flags[2::2] if f"{flag}: expected" in shown] == flags[2::2]


def test_json_that_cant_be_read_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--model", "volume", "--tiers", "[{", "--quantity", "1"], ["--model", "matrix", "--prices", "[{"]):
        assert main(["price", *flags]) == 2
        shown = capsys.readouterr().err
        assert shown.count(f"{flags[2]}: expected") == 1

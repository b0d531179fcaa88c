"""Bad catalog files: each problem under its key's path, all of them at once."""

import pytest

from flusher.catalog.parse import parse
from flusher.catalog.problem import CatalogError
from tests.catalog.support import FULL, METER, PLAN, PRICE, SUBSCRIPTION, catalog, problems

BASE = METER + PLAN + SUBSCRIPTION


def meter(keys: str) -> str:
    return f"[[meters]]\n{keys}\n"


def price(keys: str) -> str:
    return METER + f'[[plans]]\nname = "pro"\ncurrency = "usd"\n[[plans.prices]]\n{keys}\n'


def plan(keys: str) -> str:
    return METER + f"[[plans]]\n{keys}\n{PRICE}"


def tiers(value: str, model: str = "graduated") -> str:
    return price(f'meter = "api_call"\nmodel = "{model}"\ntiers = {value}')


def subscription(keys: str) -> str:
    return METER + PLAN + f"[[subscriptions]]\n{keys}\n"


METER_CASES = [
    (meter('event_type = "a"'), "meters[0].name", "it is missing"),
    (meter('name = "a"'), "meters[0].event_type", "it is missing"),
    (meter('name = 5\nevent_type = "a"'), "meters[0].name", "expected a text, got the integer 5"),
    (meter('name = ""\nevent_type = "a"'), "meters[0].name", "not empty"),
    (meter('name = " a"\nevent_type = "a"'), "meters[0].name", "no space at the start"),
    (meter(f'name = "{"x" * 129}"\nevent_type = "a"'), "meters[0].name", "at most 128 bytes"),
    (meter(f'name = "a"\nevent_type = "{"é" * 129}"'), "meters[0].event_type", "at most 256 bytes"),
    (meter('name = "a\\u0000b"\nevent_type = "a"'), "meters[0].name", "no control characters"),
    (meter('name = "a"\nevent_type = "taximeter.void"'), "meters[0].event_type", "which no meter counts"),
    (meter('name = "taximeter.void"\nevent_type = "a"'), "meters[0].name", "which no meter counts"),
    (meter('name = "a"\nevent_type = "a"\ndetailed = "yes"'), "meters[0].detailed", "true or false"),
    (
        meter('name = "a"\nevent_type = "a"\naggregation = "unique"'),
        "meters[0].field",
        "a unique counts the different values of a property",
    ),
    (meter('name = "a"\nevent_type = "a"\naggregation = "total"'), "meters[0].aggregation", 'one of "sum", "count"'),
    (meter('name = "a"\nevent_type = "a"\nfield = "bytes"'), "meters[0].field", '"units" or "properties.<name>"'),
    (meter('name = "a"\nevent_type = "a"\nfield = "properties."'), "meters[0].field", '"properties.<name>"'),
    (
        meter('name = "a"\nevent_type = "a"\naggregation = "count"\nfield = "properties.b"'),
        "meters[0].field",
        "a count counts events",
    ),
    (meter('name = "a"\nevent_type = "a"\ngroup_by = "region"'), "meters[0].group_by", "an array of texts"),
    (meter('name = "a"\nevent_type = "a"\ngroup_by = ["b", 3]'), "meters[0].group_by[1]", "got the integer 3"),
    (meter('name = "a"\nevent_type = "a"\ngroup_by = ["b", "b"]'), "meters[0].group_by[1]", "there twice"),
    (meter(f'name = "a"\nevent_type = "a"\ngroup_by = {list("abcdef")}'), "meters[0].group_by", "at most 5 entries"),
    (meter('name = "a"\nevent_type = "a"\nfilter = ["b"]'), "meters[0].filter", "a table"),
    (meter('name = "a"\nevent_type = "a"\nfilter = {b = "x"}'), "meters[0].filter.b", "an array"),
    (meter('name = "a"\nevent_type = "a"\nfilter = {b = []}'), "meters[0].filter.b", "at least one value"),
    (meter('name = "a"\nevent_type = "a"\nfilter = {b = [0.5]}'), "meters[0].filter.b[0]", "got the float 0.5"),
    (meter('name = "a"\nevent_type = "a"\nfilter = {b = ["x", "x"]}'), "meters[0].filter.b[1]", "there twice"),
    (meter('name = "a"\nevent_type = "a"\nfilter = {"" = ["x"]}'), "meters[0].filter", "not empty"),
    (meter('name = "a"\nevent_type = "a"\ngroupby = ["b"]'), "meters[0].groupby", "did you mean group_by?"),
    (METER + METER, "meters[1].name", '"api_call" is taken by meters[0]'),
]

PLAN_CASES = [
    (plan('currency = "usd"'), "plans[0].name", "it is missing"),
    (plan('name = "pro"'), "plans[0].currency", "it is missing"),
    (plan('name = "pro"\ncurrency = "zzz"'), "plans[0].currency", "a three-letter currency that Stripe supports"),
    (plan('name = "pro"\ncurrency = 840'), "plans[0].currency", "got the integer 840"),
    (plan('name = "pro"\ncurrency = "usd"\ninterval = "fortnight"'), "plans[0].interval", 'one of "day", "week"'),
    (plan('name = "pro"\ncurrency = "usd"\nanchor = "start"'), "plans[0].anchor", '"calendar", "anniversary"'),
    (plan('name = "pro"\ncurrency = "usd"\nrounding = "down"'), "plans[0].rounding", '"half_up", "half_even"'),
    (plan('name = "pro"\ncurrency = "usd"\ncredits = 5'), "plans[0].credits", "an array of tables"),
    (plan('name = "pro"\ncurrency = "usd"\nintervall = "month"'), "plans[0].intervall", "did you mean interval?"),
    ('[[plans]]\nname = "pro"\ncurrency = "usd"\n', "plans[0].prices", "it is missing"),
    ('[[plans]]\nname = "pro"\ncurrency = "usd"\nprices = []\n', "plans[0].prices", "at least one"),
    ('[[plans]]\nname = "pro"\ncurrency = "usd"\nprices = [5]\n', "plans[0].prices[0]", "expected a table"),
    (METER + PLAN + PLAN, "plans[1].name", '"pro" is taken by plans[0]'),
    (METER + PLAN + PRICE, "plans[0].prices[1].name", '"api_call" names an earlier price'),
]

PRICE_CASES = [
    (price('meter = "api_call"'), "plans[0].prices[0].model", "it is missing"),
    (price('meter = "api_call"\nmodel = "flat"'), "plans[0].prices[0].model", 'one of "fixed", "per_unit"'),
    (price('meter = "api_call"\nmodel = "matrix"'), "plans[0].prices[0].prices", "it is missing"),
    (price('model = "per_unit"\nunit_price = "1"'), "plans[0].prices[0].meter", "it is missing"),
    (
        price('meter = "calls"\nmodel = "per_unit"\nunit_price = "1"'),
        "plans[0].prices[0].meter",
        'the name of a meter, got "calls"',
    ),
    (price('meter = "api_call"\nmodel = "per_unit"'), "plans[0].prices[0].unit_price", "it is missing"),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = 0.01'),
        "plans[0].prices[0].unit_price",
        'got the float 0.01; write it in quotes: "0.01"',
    ),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = nan'), "plans[0].prices[0].unit_price", "float nan"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = 1e3'), "plans[0].prices[0].unit_price", "float 1e3"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = true'), "plans[0].prices[0].unit_price", "got true"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "-1"'), "plans[0].prices[0].unit_price", "0 or more"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = -1'), "plans[0].prices[0].unit_price", "0 or more"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1e3"'), "plans[0].prices[0].unit_price", "exponent"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "\u0661"'), "plans[0].prices[0].unit_price", "amount"),
    (price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1_0"'), "plans[0].prices[0].unit_price", "amount"),
    (
        price(f'meter = "api_call"\nmodel = "per_unit"\nunit_price = "0.{"1" * 13}"'),
        "plans[0].prices[0].unit_price",
        "12 fractional digits",
    ),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = 1000000000000'),
        "plans[0].prices[0].unit_price",
        "below 10^12",
    ),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1"\namount = "1"'),
        "plans[0].prices[0].amount",
        "unknown key",
    ),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1"\nminimum = "-1"'),
        "plans[0].prices[0].minimum",
        "0 or more",
    ),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1"\nfree_units = "-1"'),
        "plans[0].prices[0].free_units",
        "0 or more",
    ),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1"\nper_group = "yes"'),
        "plans[0].prices[0].per_group",
        "true or false",
    ),
    (
        price('meter = "api_call"\nmodel = "per_unit"\nunit_price = "1"\nper_group = true'),
        "plans[0].prices[0].per_group",
        "a meter with group_by",
    ),
    (
        price('meter = "api_call"\nmodel = "package"\npackage_size = 0\npackage_price = 1'),
        "plans[0].prices[0].package_size",
        "a quantity above 0",
    ),
    (
        price('meter = "api_call"\nmodel = "package"\npackage_size = 1'),
        "plans[0].prices[0].package_price",
        "it is missing",
    ),
    (price('model = "fixed"\namount = "1"'), "plans[0].prices[0].name", "it is missing"),
    (price('name = "fee"\nmodel = "fixed"'), "plans[0].prices[0].amount", "it is missing"),
    (
        price('name = "fee"\nmodel = "fixed"\namount = 1\ncharge = "later"'),
        "plans[0].prices[0].charge",
        '"in_advance", "in_arrears"',
    ),
    (
        price('name = "fee"\nmodel = "fixed"\namount = 1\nmeter = "api_call"'),
        "plans[0].prices[0].meter",
        "unknown key",
    ),
]

TIER_CASES = [
    (price('meter = "api_call"\nmodel = "graduated"'), "plans[0].prices[0].tiers", "it is missing"),
    (tiers("[]"), "plans[0].prices[0].tiers", "at least one"),
    (tiers("5"), "plans[0].prices[0].tiers", "an array of tables, got the integer 5"),
    (tiers("[5]"), "plans[0].prices[0].tiers[0]", "expected a table"),
    (tiers('[{unit_price = "1"}, {unit_price = "2"}]'), "plans[0].prices[0].tiers[0].up_to", "only the last tier"),
    (
        tiers('[{up_to = 5, unit_price = "1"}, {up_to = 5, unit_price = "1"}, {unit_price = "2"}]'),
        "plans[0].prices[0].tiers[1].up_to",
        "a quantity above 5",
    ),
    (
        tiers(
            "[{up_to = 1, unit_price = 1}, {up_to = 9, unit_price = 1}, {up_to = 3, unit_price = 1}, {unit_price = 2}]"
        ),
        "plans[0].prices[0].tiers[2].up_to",
        "a quantity above 9, got the integer 3",
    ),
    (
        tiers('[{up_to = 0, unit_price = "1"}, {unit_price = "2"}]', "volume"),
        "plans[0].prices[0].tiers[0].up_to",
        "a quantity above 0",
    ),
    (
        tiers('[{up_to = 2.5, unit_price = "1"}, {unit_price = "2"}]'),
        "plans[0].prices[0].tiers[0].up_to",
        'write it in quotes: "2.5"',
    ),
    (
        tiers('[{up_to = "2.0000000001", unit_price = "1"}, {unit_price = "2"}]'),
        "plans[0].prices[0].tiers[0].up_to",
        "9 fractional digits",
    ),
    (tiers('[{up_to = 5, unit_price = "1"}]'), "plans[0].prices[0].tiers[0].up_to", "none in the last tier"),
    (tiers("[{up_to = 5}, {unit_price = 1}]"), "plans[0].prices[0].tiers[0]", "unit_price or flat_fee, got neither"),
    (tiers("[{unit_price = 0.5}]"), "plans[0].prices[0].tiers[0].unit_price", 'write it in quotes: "0.5"'),
    (tiers('[{flat_fee = "-1"}]'), "plans[0].prices[0].tiers[0].flat_fee", "0 or more"),
    (tiers('[{unit_price = "1", price = "1"}]'), "plans[0].prices[0].tiers[0].price", "did you mean unit_price?"),
    (tiers(str([{"x": 1}] * 101).replace(":", " =").replace("'", "")), "plans[0].prices[0].tiers", "at most 100"),
]

CUSTOMER_CASES = [
    ("[[customers]]\n", "customers[0].id", "it is missing"),
    ('[[customers]]\nid = "a"\nuser_ids = ["u", "u"]\n', "customers[0].user_ids[1]", "there twice"),
    (
        '[[customers]]\nid = "a"\nuser_ids = ["u"]\n[[customers]]\nid = "b"\nuser_ids = ["v", "u"]\n',
        "customers[1].user_ids[1]",
        'user "u" is customer "a"\'s',
    ),
    ('[[customers]]\nid = "a"\nuser_ids = ["b"]\n[[customers]]\nid = "b"\n', "customers[1].id", 'customer "a"\'s'),
    ('[[customers]]\nid = "a"\n[[customers]]\nid = "a"\n', "customers[1].id", "taken by customers[0]"),
    ('[[customers]]\nid = "a"\ntime_zone = "Europe/Berln"\n', "customers[0].time_zone", "did you mean Europe/Berlin?"),
    ('[[customers]]\nid = "a"\ntime_zone = "+02:00"\n', "customers[0].time_zone", "expected an IANA time zone"),
    ('[[customers]]\nid = "a"\ntime_zone = 1\n', "customers[0].time_zone", "got the integer 1"),
    ('[[customers]]\nid = "a"\nname = "A"\n', "customers[0].name", "unknown key"),
]

SUBSCRIPTION_CASES = [
    (subscription('plan = "pro"\nstart = 2025-07-01T00:00:00Z'), "subscriptions[0].customer", "it is missing"),
    (subscription('customer = "a"\nstart = 2025-07-01T00:00:00Z'), "subscriptions[0].plan", "it is missing"),
    (
        subscription('customer = "a"\nplan = "max"\nstart = 2025-07-01T00:00:00Z'),
        "subscriptions[0].plan",
        'the name of a plan, got "max"',
    ),
    (subscription('customer = "a"\nplan = "pro"'), "subscriptions[0].start", "it is missing"),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = 2025-07-01T00:00:00'),
        "subscriptions[0].start",
        "2025-07-01T00:00:00 without an offset; add the offset",
    ),
    (subscription('customer = "a"\nplan = "pro"\nstart = 2025-07-01'), "subscriptions[0].start", "the date 2025-07-01"),
    (subscription('customer = "a"\nplan = "pro"\nstart = 10:00:00'), "subscriptions[0].start", "the time of day"),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = "2025-07-01T00:00:00Z"'),
        "subscriptions[0].start",
        "write it without quotes",
    ),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = 1751328000'),
        "subscriptions[0].start",
        "the integer 1751328000",
    ),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = 1969-12-31T23:59:59Z'),
        "subscriptions[0].start",
        "from 1970 to 2199",
    ),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = 0001-01-01T00:00:00+14:00'),
        "subscriptions[0].start",
        "from 1970 to 2199",
    ),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = 2025-07-01T00:00:00Z\nend = 2025-07-01T00:00:00Z'),
        "subscriptions[0].end",
        "a time after the start",
    ),
    (
        subscription('customer = "a"\nplan = "pro"\nstart = 2025-07-01T00:00:00Z\ntrial = {days = "x"}'),
        "subscriptions[0].trial.days",
        "expected",
    ),
    (BASE + SUBSCRIPTION, "subscriptions[1].id", '"cus_1/pro" is taken by subscriptions[0]'),
    (
        BASE + SUBSCRIPTION + 'id = "again"\n',
        "subscriptions[1]",
        'would both price meter "api_call" at one time',
    ),
    (
        BASE + '[[customers]]\nid = "boss"\nuser_ids = ["cus_1"]\n',
        "subscriptions[0].customer",
        'user "cus_1" is customer "boss"\'s',
    ),
]

FILE_CASES = [
    ("meters = 5\n", "meters", "an array of tables, got the integer 5"),
    ('[meters]\nname = "a"\n', "meters", "write [[meters]]"),
    ('[[meter]]\nname = "a"\n', "meter", "did you mean meters?"),
    ("x = 1\n", "x", "known keys here: customers, meters, plans, subscriptions"),
    ("a = 1\nb = \n", "line 2", "not TOML"),
    ('[[meters]]\nname = "a', "line 2", "not TOML"),
    ("a = 1\na = 2\n", "line 2", "not TOML"),
    ("a = 2025-02-30\n", "line 1", "not TOML"),
    (f"a = {'9' * 5000}\n", "line 1", "too many digits"),
    (f"a = {'[' * 5000}\n", "line 1", "nested too deeply"),
]


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        *METER_CASES,
        *PLAN_CASES,
        *PRICE_CASES,
        *TIER_CASES,
        *CUSTOMER_CASES,
        *SUBSCRIPTION_CASES,
        *FILE_CASES,
    ],
)
def test_a_bad_file_is_refused_with_the_path_and_the_reason(text: str, path: str, says: str) -> None:
    found = problems(text)
    # Then that is the one problem, and it says what was expected and what came
    assert list(found) == [path]
    assert says in found[path]


def test_all_problems_are_reported_at_once() -> None:
    # Given a file with one mistake in each section
    text = FULL.replace('"sum"', '"total"').replace('"usd"', '"zzz"').replace('"UTC"', '"Mars"').replace("Z\n", "\n")
    # Then each is there, and only those: what is wrong elsewhere makes no further noise
    assert list(problems(text)) == [
        "meters[0].aggregation",
        "plans[0].currency",
        "customers[0].time_zone",
        "subscriptions[0].start",
    ]


def test_the_error_is_for_a_person() -> None:
    with pytest.raises(CatalogError) as caught:
        parse(METER + "[[customers]]\n[[customers]]\n")
    assert caught.value.code == "catalog_invalid"
    assert caught.value.message.splitlines() == [
        "2 problems, nothing was applied:",
        "  customers[0].id: expected a text, it is missing",
        "  customers[1].id: expected a text, it is missing",
    ]


def test_a_long_value_is_shortened_and_made_printable() -> None:
    found = problems(meter(f'name = "a"\nevent_type = "a"\nfield = "{"y" * 300}"'))
    assert len(found["meters[0].field"]) < 200
    assert "\x1b" not in problems(meter('name = "a"\nevent_type = "a"\nfield = "\\u001b"'))["meters[0].field"]


def test_a_users_customer_in_force_keeps_the_user() -> None:
    current = catalog('[[customers]]\nid = "a"\nuser_ids = ["u"]\n')
    found = problems('[[customers]]\nid = "b"\nuser_ids = ["u"]\n', current)
    assert list(found) == ["customers[0].user_ids[0]"]
    # Unless the file takes the user off that customer
    text = '[[customers]]\nid = "b"\nuser_ids = ["u"]\n[[customers]]\nid = "a"\nuser_ids = []\n'
    assert problems(text, current) == {}


def test_a_subscribed_user_cannot_silently_become_another_customers() -> None:
    # Given a subscription of a customer without an entry
    found = problems('[[customers]]\nid = "boss"\nuser_ids = ["cus_1"]\n', catalog(BASE))
    # When a file gives its only user to another customer, then the file is refused
    assert list(found) == ["customers[0].user_ids"]
    assert 'add [[customers]] with id = "cus_1"' in found["customers[0].user_ids"]


def test_a_subscription_in_force_that_prices_the_same_meter_is_in_the_way() -> None:
    current = catalog(BASE)
    found = problems(SUBSCRIPTION + 'id = "again"\n', current)
    assert list(found) == ["subscriptions[0]"]


def test_a_plan_that_grows_into_another_subscriptions_meter_is_refused() -> None:
    # Given a customer with two plans on two meters
    disk = METER.replace("api_call", "disk") + PLAN.replace("api_call", "disk").replace('"pro"', '"store"')
    current = catalog(BASE + disk + SUBSCRIPTION.replace('"pro"', '"store"'))
    # When one plan gets a price on the other's meter
    found = problems(PLAN.replace('"pro"', '"store"'), current)
    # Then the plan is named
    assert list(found) == ["plans[0]"]
    assert "at one time" in found["plans[0]"]


def test_subscriptions_that_overlap_later_in_a_row_are_found() -> None:
    text = METER + PLAN + SUBSCRIPTION + 'id = "long"\n'
    text += SUBSCRIPTION.replace("07-01", "08-01") + 'id = "short"\nend = 2025-09-01T00:00:00Z\n'
    text += SUBSCRIPTION.replace("07-01", "10-01") + 'id = "late"\n'
    assert list(problems(text)) == ["subscriptions[1]", "subscriptions[2]"]


def test_an_overlap_is_found_behind_a_subscription_that_ended() -> None:
    text = METER + PLAN + SUBSCRIPTION + 'id = "ended"\nend = 2025-08-01T00:00:00Z\n'
    text += SUBSCRIPTION.replace("07-01", "08-01") + 'id = "open"\n'
    text += SUBSCRIPTION.replace("07-01", "09-01") + 'id = "late"\n'
    assert list(problems(text)) == ["subscriptions[2]"]

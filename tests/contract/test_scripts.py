"""The flusher's scripts: sealed once, read whole, published exactly, replaced only when fenced."""

import re

import pytest
from redis.crc import key_slot

from sidecar.contract import keys, scripts
from sidecar.contract.codec import Position
from sidecar.contract.identity import chain_start
from sidecar.contract.meters import WINDOW_US, Counter, Meter, Revision
from sidecar.contract.scripts import Call, DayTotals
from sidecar.contract.units import NANO
from tests.contract.store import GENERATION, LEDGER, TOKEN, Producer, Store, folded
from tests.contract.values import JULY_US, LARGEST, a_batch, a_claim, an_event, indexed

OPEN = keys.open_epoch(0, GENERATION)
SEALED = keys.sealed_epoch(0, GENERATION, "token-1")
WINDOW = JULY_US // WINDOW_US
DAY = keys.day_of(WINDOW)
EVENTS = [an_event("e-1", nanos=3 * NANO // 2), an_event("e-2", user_id="cus_2", nanos=-LARGEST), an_event(None)]


@pytest.fixture
def producer(store: Store) -> Producer:
    """The producer of an open generation that has taken one batch."""
    made = Producer()
    store.open(made)
    assert store.ingest(made, a_batch(EVENTS)).outcome == "applied"
    return made


def seal(store: Store, token: str = "token-1", generation: str = GENERATION) -> list[bytes]:
    """Seals the open epoch."""
    reply: list[bytes] = store.run(scripts.seal(0, generation, token))
    return reply


# -- seal


def test_sealing_renames_the_epoch_and_ingest_goes_on_with_an_empty_one(store: Store, producer: Producer) -> None:
    open_before = [store.dump()[name.encode()] for name in OPEN]
    assert seal(store) == [b"sealed", b"token-1", TOKEN.encode(), b"1"]
    dump = store.dump()
    assert [dump[name.encode()] for name in SEALED] == open_before
    assert not any(name.encode() in dump for name in OPEN)
    assert store.state()["events"] == "0"
    assert store.ingest(producer, a_batch([an_event("e-3")])).outcome == "applied"
    assert store.counters(SEALED) == folded(EVENTS)
    assert store.counters() == folded([an_event("e-3")])


def test_only_one_epoch_is_sealed_at_a_time_and_sealing_again_tells_which(store: Store, producer: Producer) -> None:
    first = seal(store)
    store.ingest(producer, a_batch([an_event("e-3")]))
    before = store.dump()
    for token in ("token-1", "token-2", "token-3"):
        assert seal(store, token) == first
    assert store.dump() == before


def test_an_empty_epoch_is_not_sealed(store: Store) -> None:
    store.open(Producer())
    before = store.dump()
    assert seal(store) == [b"empty"]
    assert store.dump() == before


def test_an_epoch_of_watermarks_alone_is_sealed_though_it_has_no_counters(store: Store) -> None:
    producer = Producer()
    store.open(producer)
    store.ingest(producer, a_batch(()))
    assert seal(store) == [b"sealed", b"token-1", TOKEN.encode(), b"1"]
    assert store.counters(SEALED) == {}


@pytest.mark.parametrize("generation", ["genera-2", ""])
def test_an_epoch_of_another_generation_is_not_sealed(store: Store, producer: Producer, generation: str) -> None:
    before = store.dump()
    assert seal(store, generation=generation) == [b"generation", GENERATION.encode()]
    assert store.dump() == before


def test_sealing_goes_on_in_a_fenced_generation(store: Store, producer: Producer) -> None:
    store.run(scripts.fence(0, GENERATION))
    assert seal(store)[0] == b"sealed"


# -- read


def test_entries_are_read_in_chunks_in_their_order(store: Store, producer: Producer) -> None:
    for number in range(6):
        store.ingest(producer, a_batch([an_event(f"f-{number}")]))
    wanted = store.entries()
    seal(store)
    found, after = [], "-"
    for _ in range(9):
        how, chunk = store.run(scripts.read_entries(0, GENERATION, "token-1", after, 3))
        assert how == b"ok"
        if not chunk:
            break
        assert len(chunk) <= 3
        found += [dict(zip((name.decode() for name in flat[::2]), flat[1::2], strict=True)) for _, flat in chunk]
        after = chunk[-1][0].decode()
    assert found == wanted


def test_counters_are_read_whole_in_chunks(store: Store, producer: Producer) -> None:
    store.ingest(producer, a_batch([an_event(None, user_id=f"cus_{number}", nanos=number) for number in range(400)]))
    wanted = store.client.hgetall(OPEN.counters)
    seal(store)
    found: dict[bytes, bytes] = {}
    cursor = "0"
    for _ in range(1_000):
        how, following, flat = store.run(scripts.read_counters(0, GENERATION, "token-1", cursor, 50))
        assert how == b"ok"
        found.update(zip(flat[::2], flat[1::2], strict=True))
        cursor = following.decode()
        if cursor == "0":
            break
    assert found == wanted


@pytest.mark.parametrize(
    ("generation", "token"), [(GENERATION, "token-2"), ("genera-2", "token-1"), (GENERATION, ""), (GENERATION, TOKEN)]
)
def test_a_reader_of_another_epoch_is_told_so(store: Store, producer: Producer, generation: str, token: str) -> None:
    seal(store)
    assert store.run(scripts.read_entries(0, generation, token, "-", 10)) == [b"changed"]
    assert store.run(scripts.read_counters(0, generation, token, "0", 10)) == [b"changed"]


def test_a_reader_is_told_that_the_epoch_was_published_meanwhile(store: Store, producer: Producer) -> None:
    seal(store)
    store.run(scripts.publish(0, GENERATION, "token-1", [], []))
    assert store.run(scripts.read_entries(0, GENERATION, "token-1", "-", 10)) == [b"changed"]
    assert store.run(scripts.read_counters(0, GENERATION, "token-1", "0", 10)) == [b"changed"]


# -- publish

TOTALS = DayTotals("cus_1", DAY, 4_000_000_000, {keys.total_field(Counter("cus_1", "api_call", WINDOW, "{}")): "2 2.5"})
TOTALS_NAME = keys.totals(0, GENERATION, "cus_1", DAY)


def test_publishing_deletes_exactly_that_epoch_and_tells_what_is_committed(store: Store, producer: Producer) -> None:
    # given a sealed epoch and an open one behind it
    committed = producer.position
    seal(store)
    store.ingest(producer, a_batch([an_event("e-3")]))
    before = store.dump()
    # when the sealed one is published
    call = scripts.publish(0, GENERATION, "token-1", [(producer.name, committed)], [TOTALS])
    assert store.run(call) == [b"published"]
    # then its keys are gone, the totals are there, and only the state changed beside
    after = store.dump()
    assert before.keys() - after.keys() == {name.encode() for name in SEALED}
    assert after.keys() - before.keys() == {TOTALS_NAME.encode()}
    assert {name for name in after if before.get(name) != after[name]} == {TOTALS_NAME.encode(), keys.state(0).encode()}
    assert store.client.hgetall(TOTALS_NAME) == {name.encode(): text.encode() for name, text in TOTALS.fields.items()}
    assert store.client.expiretime(TOTALS_NAME) == 4_000_000_000
    state = store.state()
    assert (state["token"], state["c:producer-1"]) == ("token-1", committed.encode())
    assert state["p:producer-1"] == producer.position.encode()
    assert state.keys() & {"sealed", "follows", "entries"} == set()


def test_publishing_again_writes_nothing(store: Store, producer: Producer) -> None:
    seal(store)
    call = scripts.publish(0, GENERATION, "token-1", [(producer.name, producer.position)], [TOTALS])
    store.run(call)
    store.ingest(producer, a_batch([an_event("e-3")]))
    before = store.dump()
    assert store.run(call) == [b"stale"]
    # and neither does it while a later epoch is sealed
    assert seal(store, "token-2")[1:3] == [b"token-2", b"token-1"]
    later = store.dump()
    assert store.run(call) == [b"stale"]
    assert store.dump() == later
    assert before != later


@pytest.mark.parametrize(
    ("generation", "token", "answer"),
    [(GENERATION, "token-9", [b"stale"]), ("genera-2", "token-1", [b"generation", GENERATION.encode()])],
)
def test_nothing_else_is_published(
    store: Store, producer: Producer, generation: str, token: str, answer: list[bytes]
) -> None:
    seal(store)
    before = store.dump()
    assert store.run(scripts.publish(0, generation, token, [], [TOTALS])) == answer
    assert store.dump() == before


def test_totals_are_absolute(store: Store, producer: Producer) -> None:
    other = keys.total_field(Counter("cus_1", "other", WINDOW, "{}"))
    for number, text in ((1, "7 7"), (2, "8 7.000000001")):
        store.ingest(producer, a_batch([an_event(f"f-{number}")]))
        seal(store, f"token-{number}")
        totals = DayTotals("cus_1", DAY, 4_000_000_000 + number, {other: text})
        assert store.run(scripts.publish(0, GENERATION, f"token-{number}", [], [totals])) == [b"published"]
        assert store.client.hgetall(TOTALS_NAME) == {other.encode(): text.encode()}
    assert store.client.expiretime(TOTALS_NAME) == 4_000_000_002


# -- fence, swap, register


def test_fencing_is_for_good_and_safe_to_repeat(store: Store, producer: Producer) -> None:
    assert store.run(scripts.fence(0, GENERATION)) == [b"fenced"]
    before = store.dump()
    assert store.run(scripts.fence(0, GENERATION)) == [b"fenced"]
    assert store.dump() == before
    assert store.ingest(producer, a_batch([an_event("e-3")])).outcome == "closed"


@pytest.mark.parametrize("opened", [True, False])
def test_only_the_generation_that_was_observed_is_fenced(store: Store, opened: bool) -> None:
    if opened:
        store.open(Producer())
    before = store.dump()
    assert store.run(scripts.fence(0, "genera-2")) == [b"generation", GENERATION.encode() if opened else b""]
    assert store.dump() == before


STAGED = [
    scripts.StagedHash(keys.staged_state(0, "genera-2"), 4_000_000_000, {"generation": "genera-2"}),
    scripts.StagedHash(keys.totals(0, "genera-2", "cus_1", 20_290), 4_000_000_001, {"total": "1 1", "other": "2 3"}),
]


def test_staging_writes_absolute_values_that_expire_and_may_be_repeated(store: Store) -> None:
    for _ in range(2):
        # when a state and totals of a new generation are staged, and staged again
        assert store.run(scripts.stage(STAGED)) == [b"staged"]
        # then they are there as given, until they expire
        for staged in STAGED:
            assert store.client.hgetall(staged.key) == {k.encode(): v.encode() for k, v in staged.fields.items()}
            assert store.client.expiretime(staged.key) == staged.expires_at_s


def test_a_generation_is_opened_where_there_is_none(store: Store) -> None:
    producer = Producer()
    store.stage("genera-2", [producer])
    staged = store.client.hgetall(keys.staged_state(0, "genera-2"))
    assert store.run(scripts.swap(0, "", "genera-2", "token-7")) == [b"swapped"]
    # then what was staged is the state, for good, with the token
    assert store.client.hgetall(keys.state(0)) == {**staged, b"token": b"token-7"}
    assert set(store.dump()) == {keys.state(0).encode()}
    assert store.client.ttl(keys.state(0)) == -1


def test_a_fenced_generation_is_replaced_and_its_batches_are_refused_from_then_on(
    store: Store, producer: Producer
) -> None:
    late = store.call(producer, a_batch([an_event("e-3")]))
    store.run(scripts.fence(0, GENERATION))
    store.stage("genera-2", [producer])
    assert store.run(scripts.swap(0, GENERATION, "genera-2", "token-7")) == [b"swapped"]
    assert "fence" not in store.state()
    before = store.dump()
    assert store.run(late) == [b"generation", b"genera-2"]
    assert store.dump() == before


@pytest.mark.parametrize("observed", ["", GENERATION, "genera-9"])
def test_an_unfenced_generation_is_never_replaced(store: Store, producer: Producer, observed: str) -> None:
    store.stage("genera-2", [producer])
    before = store.dump()
    assert store.run(scripts.swap(0, observed, "genera-2", "token-7")) == [b"generation", GENERATION.encode()]
    assert store.dump() == before


@pytest.mark.parametrize("observed", ["", "genera-9"])
def test_a_fenced_generation_that_was_not_observed_is_not_replaced(
    store: Store, producer: Producer, observed: str
) -> None:
    store.run(scripts.fence(0, GENERATION))
    store.stage("genera-2", [producer])
    before = store.dump()
    assert store.run(scripts.swap(0, observed, "genera-2", "token-7")) == [b"generation", GENERATION.encode()]
    assert store.dump() == before


def test_a_generation_that_went_away_is_not_replaced_as_if_it_were_there(store: Store) -> None:
    store.stage("genera-2", [])
    before = store.dump()
    assert store.run(scripts.swap(0, GENERATION, "genera-2", "token-7")) == [b"generation", b""]
    assert store.dump() == before


@pytest.mark.parametrize("there", [True, False])
def test_without_a_staged_state_nothing_is_opened(store: Store, there: bool) -> None:
    if there:
        store.open(Producer())
        store.run(scripts.fence(0, GENERATION))
    before = store.dump()
    assert store.run(scripts.swap(0, GENERATION if there else "", "genera-2", "token-7")) == [b"unstaged"]
    assert store.dump() == before


def test_registering_writes_a_position_only_where_there_is_none(store: Store, producer: Producer) -> None:
    fresh, zero = Producer("producer-2"), Position(0, chain_start(LEDGER, "producer-2", 0))
    assert store.ingest(fresh, a_batch([an_event("e-3")])).outcome == "unregistered"
    assert store.run(scripts.register(0, GENERATION, fresh.name, zero)) == [b"registered"]
    assert store.ingest(fresh, a_batch([an_event("e-3")])).outcome == "applied"
    # when it is registered again, and the one that has been there from the start as well, once it is committed
    seal(store)
    store.run(scripts.publish(0, GENERATION, "token-1", [(producer.name, producer.position)], []))
    before = store.dump()
    old = Position(0, chain_start(LEDGER, producer.name, 0))
    assert store.run(scripts.register(0, GENERATION, fresh.name, zero)) == [b"registered"]
    assert store.run(scripts.register(0, GENERATION, producer.name, old)) == [b"registered"]
    assert store.dump() == before


def test_registering_with_another_generation_writes_nothing(store: Store, producer: Producer) -> None:
    before = store.dump()
    zero = Position(0, bytes(16))
    assert store.run(scripts.register(0, "genera-2", "producer-2", zero)) == [b"generation", GENERATION.encode()]
    assert store.dump() == before


# -- what holds for all of them

METERS = Revision(1, [Meter("calls", "api_call")])


def every_call() -> list[Call]:
    """Returns a call of every script."""
    producer, zero = Producer(), Position(0, bytes(16))
    events = [an_event("e-1"), *indexed("k", [1])]
    batch = a_batch(events, [a_claim("k", events)])
    return [
        scripts.ingest(scripts.Shard(LEDGER, 1, 0, GENERATION), "p", producer.step(batch), batch, METERS, 60),
        scripts.ingest_opaque(scripts.Shard(LEDGER, 1, 0, GENERATION), "p", producer.step(batch), 2),
        scripts.seal(0, GENERATION, "token-1"),
        scripts.read_entries(0, GENERATION, "token-1", "-", 10),
        scripts.read_counters(0, GENERATION, "token-1", "0", 10),
        scripts.publish(0, GENERATION, "token-1", [("p", zero)], [TOTALS]),
        scripts.fence(0, GENERATION),
        scripts.stage(STAGED),
        scripts.swap(0, GENERATION, "genera-2", "token-2"),
        scripts.register(0, GENERATION, "p", zero),
        scripts.live(0, GENERATION, "token-1", "cus_{1}", None, (WINDOW, WINDOW + 100)),
        scripts.inspect(0, GENERATION, ""),
    ]


@pytest.mark.parametrize(
    "call", every_call(), ids=lambda call: call.script.text.split(b"-- ")[1].split(b":")[0].decode()
)
def test_all_keys_of_a_call_are_in_one_slot_of_a_cluster(call: Call) -> None:
    names = [name.encode() if isinstance(name, str) else name for name in call.keys]
    assert len({key_slot(name) for name in names}) == 1
    assert {key_slot(keys.state(0).encode())} == {key_slot(name) for name in names}


@pytest.mark.parametrize(
    "call", every_call(), ids=lambda call: call.script.text.split(b"-- ")[1].split(b":")[0].decode()
)
def test_a_script_touches_only_the_keys_that_it_is_given(call: Call) -> None:
    used = re.findall(rb"redis\.call\('[A-Z]+', ([^,)]+)", call.script.text)
    assert used
    assert all(re.fullmatch(rb"KEYS\[[^]]+\]|key|counters|index", name) for name in used)


@pytest.mark.not_on_fakeredis("it does not know the shebang line, so the texts there are not the ones that were hashed")
def test_the_server_knows_every_script_by_the_same_name(store: Store) -> None:
    store.open(Producer())
    for call in every_call():
        assert store.client.script_load(call.script.text) == call.script.sha1
        assert isinstance(store.client.execute_command(*call.evalsha()), list)


@pytest.mark.not_on_fakeredis("it does not know the flags of a script's first line")
def test_scripts_that_only_read_may_run_on_a_replica(store: Store, producer: Producer) -> None:
    seal(store)
    for call in every_call():
        if b"no-writes" in call.script.text.splitlines()[0]:
            assert store.client.eval_ro(call.script.text, len(call.keys), *call.keys, *call.args)[0] in {
                b"ok",
                b"again",
            }

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit.history import BuildEvent, BuildEventKind, read_event
from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import MAX_FIELDS, MAX_NAME_CHARACTERS
from buildpool.core.observed.load import RunningBuild
from daemons import STARTED as LATER
from daemons import a_record, a_timestamp, an_event, field, number

# What BuildKit 0.34.2 said of a build that failed, and then of its record when that was deleted.
# The build had an argument: TOKEN=hunter2.
REF = "pbvvhw8wkegqbqg8uj84sg16x"
STARTED = bytes.fromhex(
    "12440a1970627676687738776b65677162716738756a383473673136781a1a0a0f6275696c642d6172673a54"
    "4f4b454e120768756e74657232320b08959497d80610c8bcf41d"
)
COMPLETE = bytes.fromhex(
    "080112e4030a1970627676687738776b65677162716738756a383473673136781a1a0a0f6275696c642d6172"
    "673a544f4b454e120768756e746572322a91010802128c016661696c656420746f20636f6d70757465206361"
    "636865206b65793a206661696c656420746f2063616c63756c61746520636865636b73756d206f6620726566"
    "2066346a6e75323334716175396d6d7563313337637971786a6c3a3a79753037323966307078666b79783962"
    "6d723677786662746a3a20222f6e6f7468696e67223a206e6f7420666f756e64320b08959497d80610c8bcf4"
    "1d3a0b08959497d80610bea9d34842700a226170706c69636174696f6e2f766e642e6275696c646b69742e73"
    "74617475732e763012477368613235363a376137636234303362386532303566333338373761343139356535"
    "3336323263626136383134356564313135346633663965613135316633386132396430323618a51880010488"
    "0104920180010a326170706c69636174696f6e2f766e642e676f6f676c65617069732e676f6f676c652e7270"
    "632e7374617475732b70726f746f12477368613235363a613465333334633262323965666263643963343234"
    "6261303863393437313835343064303965363139656630303037343238643761373538356562613038363318"
    "a12b980101"
)
DELETED = bytes.fromhex("0802121b0a1970627676687738776b65677162716738756a38347367313678")
WHEN = datetime(2026, 11, 24, 17, 32, 5, 62725, tzinfo=UTC)

refs = st.text(min_size=1, max_size=30)
times = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(6325, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
fixed = st.one_of(
    st.binary(min_size=8, max_size=8).map(lambda value: (1, value)),
    st.binary(min_size=4, max_size=4).map(lambda value: (5, value)),
)


def unknown(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """Fields that nobody has heard of, of every form."""
    return st.lists(
        st.one_of(
            st.builds(field, numbers, st.integers(-(2**63), 2**64 - 1)),
            st.builds(field, numbers, st.binary(max_size=40)),
            st.builds(lambda tag, value: number(tag << 3 | value[0]) + value[1], numbers, fixed),
        ),
        max_size=3,
    ).map(b"".join)


foreign = unknown(st.integers(20, 2**29 - 1))


@pytest.mark.parametrize(
    ("recorded", "kind", "when"),
    [
        (STARTED, BuildEventKind.STARTED, WHEN),
        (COMPLETE, BuildEventKind.COMPLETE, WHEN),
        (DELETED, BuildEventKind.DELETED, None),
    ],
    ids=["started", "complete", "deleted"],
)
def test_what_buildkit_says_is_understood(
    recorded: bytes, kind: BuildEventKind, when: datetime | None
) -> None:
    event = read_event(recorded)
    assert (event.kind, event.build) == (kind, RunningBuild(REF, when))


def test_how_many_steps_were_cached_is_read_once_a_build_is_complete() -> None:
    cached, steps = read_event(COMPLETE).steps
    assert 0 <= cached <= steps
    assert steps > 0


def test_arguments_of_a_build_are_not_kept() -> None:
    assert b"hunter2" in STARTED
    assert "hunter2" not in repr(read_event(STARTED))


@given(kind=st.sampled_from(BuildEventKind), ref=refs, when=times, before=foreign, after=foreign)
def test_an_event_is_found_between_fields_nobody_knows(
    kind: BuildEventKind, ref: str, when: datetime, before: bytes, after: bytes
) -> None:
    record = before + a_record(ref, when) + after
    message = after + field(2, record) + before + field(1, kind)
    assert read_event(message) == BuildEvent(kind, RunningBuild(ref, when))


@given(kind=st.integers(3, 2**64 - 1))
def test_a_kind_that_is_new_is_read_as_such(kind: int) -> None:
    assert read_event(field(1, kind) + field(2, a_record("a"))).kind is BuildEventKind.NEW


def test_a_record_in_two_parts_is_one() -> None:
    message = field(2, field(1, b"a")) + field(2, field(6, a_timestamp(LATER)))
    assert read_event(message).build == RunningBuild("a", LATER)


def test_a_time_in_two_parts_is_one() -> None:
    parts = field(6, field(1, int(LATER.timestamp()))) + field(6, field(2, 250_000_000))
    assert read_event(field(2, field(1, b"a") + parts)).build == RunningBuild("a", LATER)


def test_any_duration_can_be_added_to_a_time_that_is_told() -> None:
    record = field(1, b"a") + field(6, field(1, 2**37 - 1))
    started = read_event(field(2, record)).build.started
    assert started is not None
    assert started + timedelta(days=365 * 1000) > started


@pytest.mark.parametrize("seconds", [0, -62135596800, -1, 2**62, 253402300800, 2**37])
def test_a_time_that_is_none_is_not_told(seconds: int) -> None:
    record = field(1, b"a") + field(6, field(1, seconds) + field(2, 0))
    assert read_event(field(2, record)).build.started is None


@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        (b"", "names no build"),
        (field(2, b""), "names no build"),
        (field(2, field(1, 7)), "names no build"),
        (field(2, field(1, b"\xff")), "not UTF-8"),
        (b"\x80", "middle of a number"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "64 bits"),
        (b"\x12\x05abc", "middle of a field"),
        (b"\x09abc", "middle of a field"),
        (b"\x0b", "unknown form 3"),
        (b"\x00\x00", "no number"),
    ],
)
def test_garbage_is_called_garbage(garbage: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        read_event(garbage)


HALF = MAX_FIELDS // 2
EMPTY = field(9, b"")


@pytest.mark.parametrize(
    "flood",
    [
        field(2, b"") * (MAX_FIELDS + 1),
        field(2, EMPTY * (MAX_FIELDS + 1)),
        field(2, EMPTY * HALF) * 2,
        field(2, field(6, b"") * (MAX_FIELDS + 1)),
        field(2, field(6, field(1, 1) * HALF) * 2),
        EMPTY * HALF + field(2, field(1, b"a") + EMPTY * HALF),
    ],
    ids=["records", "a record", "two records", "times", "two times", "an event and its record"],
)
def test_of_one_event_no_more_fields_are_read_than_of_a_request(flood: bytes) -> None:
    with pytest.raises(WireError, match=f"more than {MAX_FIELDS} fields"):
        read_event(field(2, field(1, b"a")) + flood)


def test_a_record_has_room_for_all_arguments_that_a_request_may_have() -> None:
    argument = field(3, field(1, b"build-arg:A") + field(2, b"x"))
    record = field(1, b"a") + argument * (MAX_FIELDS // 3)
    assert read_event(field(2, record)).build.ref == "a"


def test_the_name_of_a_build_is_as_short_as_in_a_request() -> None:
    longest = "é" * MAX_NAME_CHARACTERS
    assert read_event(field(2, field(1, longest.encode()))).build.ref == longest
    with pytest.raises(WireError, match=f"more than {MAX_NAME_CHARACTERS} characters"):
        read_event(field(2, field(1, f"{longest}é".encode())))


@given(garbage=st.binary(max_size=60))
def test_whatever_comes_is_an_event_or_a_wire_error(garbage: bytes) -> None:
    with suppress(WireError):
        assert read_event(garbage).build.ref


@given(at=st.integers(0, len(COMPLETE) - 1))
def test_a_message_that_was_cut_is_never_taken_for_another_build(at: int) -> None:
    try:
        build = read_event(COMPLETE[:at]).build
    except WireError:
        return
    assert build.ref == REF


def test_a_start_is_the_kind_that_is_left_out() -> None:
    assert read_event(an_event(BuildEventKind.STARTED, "a")).kind is BuildEventKind.STARTED

"""A Redis in memory: the commands that the product uses, and its real scripts in a real Lua 5.1.

`tests/simulation/test_mini_redis.py` holds it to a real server. Values: bytes for a string, dict for a hash, `Stream`,
`SortedSet`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, Final

from lupa.lua51 import LuaRuntime
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

Value = Any
WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
SIGNED_MAX: Final = (1 << 63) - 1


class Stream(list[tuple[bytes, list[bytes]]]):
    """Entries: id, fields and values."""


class SortedSet(dict[bytes, float]):
    """Members and scores."""


class Scripts:
    """Compiles each script once for the whole process."""

    def __init__(self) -> None:
        self.lua = LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._compiled: dict[bytes, tuple[Any, bool, bool]] = {}
        self._table = self.lua.table_from

    def compiled(self, text: bytes) -> tuple[Any, bool, bool]:
        """Returns the script as a function of KEYS, ARGV and redis, and whether it may write, and without memory."""
        found = self._compiled.get(text)
        if found is None:
            first, _, rest = text.partition(b"\n")
            function = self.lua.execute(b"return function(KEYS, ARGV, redis)\n" + rest + b"\nend")
            found = self._compiled[text] = (function, b"no-writes" not in first, b"allow-oom" in first)
        return found

    def table(self, values: Iterable[Any]) -> Any:
        """Returns a Lua table of a reply, with false where Redis says nil."""
        return self._table(
            [False if value is None else self.table(value) if type(value) is list else value for value in values]
        )


SCRIPTS: Final = Scripts()
KINDS: Final = {"bytes": b"string", "dict": b"hash", "Stream": b"stream", "SortedSet": b"zset"}


def _python(value: Any) -> Any:
    """Returns what Redis would answer for a value that a script returned."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, float):
        return int(value)
    if isinstance(value, bytes | int):
        return value
    found = []
    for place in range(1, len(value) + 1):
        if value[place] is None:
            break
        found.append(_python(value[place]))
    return found


def _bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    return value.encode() if isinstance(value, str) else b"%d" % value


class MiniRedis:
    """One server. `wall_s` is its clock. While `full`, whatever needs memory is denied."""

    def __init__(self, wall_s: Callable[[], float]) -> None:
        self.data: dict[bytes, Value] = {}
        self.expires: dict[bytes, float] = {}
        self.loaded: set[bytes] = set()
        self.full = False
        self.giving_up: Callable[[bytes, Stream], None] = lambda name, stream: None  # a stream is deleted
        self._texts: dict[bytes, bytes] = {}
        self._wall_s = wall_s
        self._last_id = (0, 0)
        self._commands: dict[bytes, Callable[[Sequence[bytes]], Any]] = {
            name[5:].upper().encode(): getattr(self, name) for name in dir(self) if name.startswith("_cmd_")
        }
        self._redis = SCRIPTS.lua.table_from({b"call": self._from_lua})

    # -- what a client does

    def execute(self, *command: Any) -> Any:
        """Runs a command and returns its reply in the form of the protocol. Raises ResponseError."""
        if command[0] == "MULTI":
            return [self.execute(*one) for one in command[1]]
        words = [_bytes(word) for word in command]
        name = words[0].upper()
        if name in {b"EVALSHA", b"EVAL"}:
            return self._script(name, words)
        if name == b"SCRIPT":
            return self._load(words[2])
        if self.full and name in _NEED_MEMORY:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        self._forget_expired()
        return self._commands[name](words[1:])

    def _script(self, name: bytes, words: Sequence[bytes]) -> Any:
        if name == b"EVAL":
            sha = self._load(words[1])
        else:
            sha = words[1]
            if sha not in self.loaded:
                raise NoScriptError("No matching script. Please use EVAL.")
        function, writes, without_memory = SCRIPTS.compiled(self._texts[sha])
        if self.full and writes and not without_memory:
            raise OutOfMemoryError(
                "allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'"
            )
        self._forget_expired()
        count = int(words[2])
        table = SCRIPTS.lua.table_from
        return _python(function(table(words[3 : 3 + count]), table(words[3 + count :]), self._redis))

    def _load(self, text: bytes) -> bytes:
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self._texts[sha] = text
        self.loaded.add(sha)
        return sha

    def _from_lua(self, name: bytes, *arguments: Any) -> Any:
        reply = self._commands[name]([_lua_bytes(value) for value in arguments])
        if name == b"TYPE":
            return SCRIPTS.lua.table_from({b"ok": reply})
        if reply is None:
            return False
        return SCRIPTS.table(reply) if type(reply) is list else reply

    # -- faults

    def restart(self) -> None:
        """Forgets the scripts, as a server that starts does."""
        self.loaded.clear()

    def wipe(self) -> None:
        """Loses everything."""
        self.data.clear()
        self.expires.clear()

    def evict(self, key: bytes) -> None:
        """Loses one key."""
        self.data.pop(key, None)
        self.expires.pop(key, None)

    def snapshot(self) -> Any:
        """Returns everything as it is now."""
        return deepcopy((self.data, self.expires, self._last_id))

    def restore(self, snapshot: Any) -> None:
        """Goes back to what it was then."""
        self.data, self.expires, self._last_id = deepcopy(snapshot)

    def _forget_expired(self) -> None:
        if self.expires:
            now_s = self._wall_s()
            for key in [key for key, when_s in self.expires.items() if when_s <= now_s]:
                self.evict(key)

    # -- commands: strings and keys

    def _get(self, key: bytes, kind: type) -> Any:
        value = self.data.get(key)
        if value is not None and type(value) is not kind:
            raise ResponseError(WRONG_TYPE)
        return value

    def _make(self, key: bytes, kind: type) -> Any:
        value = self._get(key, kind)
        if value is None:
            value = self.data[key] = kind()
        return value

    def _drop_if_empty(self, key: bytes) -> None:
        if not self.data.get(key, True):
            self.evict(key)

    def _cmd_get(self, words: Sequence[bytes]) -> Any:
        return self._get(words[0], bytes)

    def _cmd_set(self, words: Sequence[bytes]) -> Any:
        key, value, *options = words
        names = [option.upper() for option in options]
        old = self._get(key, bytes) if b"GET" in names else self.data.get(key)
        if b"NX" not in names or old is None:
            self.data[key] = value
            self.expires.pop(key, None)
            if b"EX" in names:
                self.expires[key] = self._wall_s() + int(options[names.index(b"EX") + 1])
        elif b"GET" not in names:
            return None
        return old if b"GET" in names else b"OK"

    def _cmd_type(self, words: Sequence[bytes]) -> bytes:
        return KINDS[type(self.data[words[0]]).__name__] if words[0] in self.data else b"none"

    def _cmd_exists(self, words: Sequence[bytes]) -> int:
        return sum(key in self.data for key in words)

    def _cmd_unlink(self, words: Sequence[bytes]) -> int:
        there = [key for key in words if key in self.data]
        for key in there:
            if type(self.data[key]) is Stream:
                self.giving_up(key, self.data[key])
            self.evict(key)
        return len(there)

    _cmd_del = _cmd_unlink

    def _cmd_rename(self, words: Sequence[bytes]) -> bytes:
        old, new = words
        if old not in self.data:
            raise ResponseError("no such key")
        if old.endswith(b":state") and new in self.data:
            stem = new + self.data[new].get(b"generation", b"none") + b":"
            for name in [name for name in self.data if name.startswith(stem) and type(self.data[name]) is Stream]:
                self.giving_up(name, self.data[name])  # nobody reads it any more
        self.evict(new)
        self.data[new] = self.data.pop(old)
        if old in self.expires:
            self.expires[new] = self.expires.pop(old)
        return b"OK"

    def _cmd_expire(self, words: Sequence[bytes]) -> int:
        return self._expire_at(words[0], self._wall_s() + int(words[1]))

    def _cmd_expireat(self, words: Sequence[bytes]) -> int:
        return self._expire_at(words[0], float(words[1]))

    def _expire_at(self, key: bytes, when_s: float) -> int:
        if key not in self.data:
            return 0
        self.expires[key] = when_s
        self._forget_expired()
        return 1

    def _cmd_persist(self, words: Sequence[bytes]) -> int:
        return int(self.expires.pop(words[0], None) is not None)

    def _cmd_scan(self, words: Sequence[bytes]) -> Any:
        pattern = words[words.index(b"MATCH") + 1] if b"MATCH" in words else b"*"
        return [b"0", [key for key in self.data if key.startswith(pattern.rstrip(b"*"))]]

    def _cmd_time(self, _: Sequence[bytes]) -> Any:
        microseconds = int(self._wall_s() * 1_000_000)
        return [b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)]

    # -- hashes

    def _cmd_hget(self, words: Sequence[bytes]) -> Any:
        return (self._get(words[0], dict) or {}).get(words[1])

    def _cmd_hmget(self, words: Sequence[bytes]) -> Any:
        found = self._get(words[0], dict) or {}
        return [found.get(field) for field in words[1:]]

    def _cmd_hgetall(self, words: Sequence[bytes]) -> Any:
        return [part for pair in (self._get(words[0], dict) or {}).items() for part in pair]

    def _cmd_hkeys(self, words: Sequence[bytes]) -> Any:
        return list(self._get(words[0], dict) or ())

    def _cmd_hlen(self, words: Sequence[bytes]) -> int:
        return len(self._get(words[0], dict) or ())

    def _cmd_hset(self, words: Sequence[bytes]) -> int:
        found = self._make(words[0], dict)
        before = len(found)
        found.update(zip(words[1::2], words[2::2], strict=True))
        return len(found) - before

    def _cmd_hsetnx(self, words: Sequence[bytes]) -> int:
        found = self._make(words[0], dict)
        if words[1] in found:
            return 0
        found[words[1]] = words[2]
        return 1

    def _cmd_hdel(self, words: Sequence[bytes]) -> int:
        found = self._get(words[0], dict) or {}
        if b"sealed" in found and b"sealed" in words[1:]:
            name = b"%b%b:%b:stream" % (words[0], found[b"generation"], found[b"sealed"])
            if name in self.data:
                self.giving_up(name, self.data[name])  # nobody knows its name any more
        gone = sum(found.pop(field, None) is not None for field in words[1:])
        self._drop_if_empty(words[0])
        return gone

    def _cmd_hincrby(self, words: Sequence[bytes]) -> int:
        found = self._make(words[0], dict)
        try:
            value = int(found.get(words[1], b"0")) + int(words[2])
        except ValueError:
            raise ResponseError("hash value is not an integer") from None
        if not -SIGNED_MAX - 1 <= value <= SIGNED_MAX:
            raise ResponseError("increment or decrement would overflow")
        found[words[1]] = b"%d" % value
        return value

    def _cmd_hscan(self, words: Sequence[bytes]) -> Any:
        return [b"0", self._cmd_hgetall(words[:1])]

    # -- streams and sorted sets

    def _cmd_xlen(self, words: Sequence[bytes]) -> int:
        return len(self._get(words[0], Stream) or ())

    def _cmd_xadd(self, words: Sequence[bytes]) -> bytes:
        stream = self._make(words[0], Stream)
        now_ms = int(self._wall_s() * 1000)
        last_ms, last = self._last_id
        self._last_id = (now_ms, 0) if now_ms > last_ms else (last_ms, last + 1)
        identifier = b"%d-%d" % self._last_id
        stream.append((identifier, list(words[2:])))
        return identifier

    def _cmd_xrange(self, words: Sequence[bytes]) -> Any:
        start = (-1, -1) if words[1] == b"-" else _stream_id(words[1].lstrip(b"("))
        count = int(words[4]) if len(words) > 3 else -1
        exclusive = words[1].startswith(b"(")
        found = [
            [identifier, fields]
            for identifier, fields in self._get(words[0], Stream) or ()
            if _stream_id(identifier) > start or (not exclusive and _stream_id(identifier) == start)
        ]
        return found if count < 0 else found[:count]

    def _cmd_zadd(self, words: Sequence[bytes]) -> int:
        found = self._make(words[0], SortedSet)
        before = len(found)
        found[words[2]] = float(words[1])
        return len(found) - before

    def _cmd_zcard(self, words: Sequence[bytes]) -> int:
        return len(self._get(words[0], SortedSet) or ())

    def _cmd_zrangebylex(self, words: Sequence[bytes]) -> Any:
        low, high = words[1], words[2]
        return sorted(
            member
            for member in self._get(words[0], SortedSet) or ()
            if (member >= low[1:] if low[:1] == b"[" else member > low[1:])
            and (member <= high[1:] if high[:1] == b"[" else member < high[1:])
        )


_NEED_MEMORY: Final = frozenset({b"SET", b"HSET", b"HSETNX", b"HINCRBY", b"XADD", b"ZADD", b"RENAME"})


def _stream_id(identifier: bytes) -> tuple[int, int]:
    milliseconds, _, number = identifier.partition(b"-")
    return int(milliseconds), int(number or b"0")


def _lua_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, float) and not value.is_integer():
        return repr(value).encode()
    return b"%d" % value

"""The index of a request store: where answers lie, what is under way. Derived from the segments."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dataprep.llm.segments import Place, Segments

VERSION = "1"
_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE replies (key TEXT PRIMARY KEY, segment INT, start INT, length INT, origin TEXT)
    WITHOUT ROWID;
CREATE TABLE sent (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE parts (part TEXT PRIMARY KEY, file TEXT, batch TEXT, requests INT) WITHOUT ROWID;
CREATE TABLE part_keys (part TEXT, number INT, key TEXT, PRIMARY KEY (part, number)) WITHOUT ROWID;
CREATE INDEX part_of_key ON part_keys (key);
"""


class Part(NamedTuple):
    """Requests under way as one batch; ``file`` and ``batch`` are the server's names, if known."""

    name: str
    file: str | None
    batch: str | None
    requests: int


class Index:
    """SQLite file that follows the segments; thrown away and made anew when it cannot be right."""

    def __init__(self, path: Path, store_id: str, segments: Segments) -> None:
        self.path = path
        self._store_id = store_id
        self._segments = segments
        try:
            self._open()
            usable = self._usable()
        except (sqlite3.DatabaseError, OSError):
            usable = False
        if not usable:
            self._remake()
        self._catch_up()

    def _open(self) -> None:
        self._base = sqlite3.connect(self.path, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")

    def _usable(self) -> bool:
        tables = self._base.execute("SELECT count(*) FROM sqlite_master WHERE type='table'")
        if tables.fetchone()[0] == 0 or self._base.execute("PRAGMA quick_check(1)").fetchone() != (
            "ok",
        ):
            return False
        facts = dict(self._base.execute("SELECT name, value FROM facts"))
        if (facts.get("version"), facts.get("store")) != (VERSION, self._store_id):
            return False
        sizes = self._segments.sizes()
        segment, end = int(facts["segment"]), int(facts["end"])
        return segment in sizes and end <= sizes[segment]

    def _remake(self) -> None:
        with self._errors():
            self._base.close()
            for suffix in ("", "-wal", "-shm", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self._open()
            self._base.execute("BEGIN")
            for statement in _TABLES.split(";"):
                self._base.execute(statement)
            self._base.executemany(
                "INSERT INTO facts VALUES (?, ?)",
                [("version", VERSION), ("store", self._store_id), ("segment", "1"), ("end", "0"),
                 ("parts", "0")],
            )  # fmt: skip
            self._base.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as ``OSError`` with one line."""
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(f"{self.path}: cannot be written ({error})") from error

    def _fact(self, name: str) -> int:
        found = self._base.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return int(found[0])

    def _catch_up(self) -> None:
        segment, end = self._fact("segment"), self._fact("end")
        for number in self._segments.numbers():
            if number >= segment:
                self.apply(self._segments.scan(number, end if number == segment else 0))

    def apply(self, lines: Iterable[tuple[Place, dict[str, Any]]]) -> None:
        """Enter journal lines; all of them or, after an error, none."""
        last: Place | None = None
        with self._errors():
            self._base.execute("BEGIN")
            try:
                for place, record in lines:
                    self._enter(place, record)
                    last = place
                if last is not None:
                    facts = [(str(last.segment), "segment"),
                             (str(last.start + last.length), "end")]  # fmt: skip
                    self._base.executemany("UPDATE facts SET value = ? WHERE name = ?", facts)
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _enter(self, place: Place, record: dict[str, Any]) -> None:
        run, kind = self._base.execute, record["kind"]
        if kind == "reply":  # the first answer stays: rows were already made from it
            values = (record["key"], *place, record.get("origin", ""))
            run("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", values)
            run("DELETE FROM sent WHERE key = ?", (record["key"],))
        elif kind == "sent":
            keys = [(key,) for key in record["keys"]]
            self._base.executemany("INSERT OR IGNORE INTO sent VALUES (?)", keys)
        elif kind == "unsent":
            self._base.executemany("DELETE FROM sent WHERE key = ?", [(k,) for k in record["keys"]])
        elif kind == "part":
            part, keys = record["part"], record["keys"]
            run("INSERT INTO parts VALUES (?, NULL, NULL, ?)", (part, len(keys)))
            rows = [(part, number, key) for number, key in enumerate(keys)]
            self._base.executemany("INSERT INTO part_keys VALUES (?, ?, ?)", rows)
            run("UPDATE facts SET value = ? WHERE name = 'parts'", (str(int(part)),))
        elif kind in ("uploaded", "batch"):
            column = "file" if kind == "uploaded" else "batch"
            run(f"UPDATE parts SET {column} = ? WHERE part = ?", (record[column], record["part"]))
        elif kind == "closed":
            run("DELETE FROM parts WHERE part = ?", (record["part"],))
            run("DELETE FROM part_keys WHERE part = ?", (record["part"],))
        else:
            raise ValueError(
                f"{self._segments.path(place.segment)}: the line at byte {place.start} is of kind "
                f"{kind!r}, which this version does not know"
            )

    def place(self, key: str) -> Place | None:
        """Where the answer of a request lies."""
        query = "SELECT segment, start, length FROM replies WHERE key = ?"
        found = self._base.execute(query, (key,)).fetchone()
        return None if found is None else Place(*found)

    def count(self) -> int:
        """How many requests are answered."""
        return self._base.execute("SELECT count(*) FROM replies").fetchone()[0]

    def origins(self) -> dict[str, int]:
        """Answers by the server that gave them."""
        query = "SELECT origin, count(*) FROM replies GROUP BY origin ORDER BY origin"
        return dict(self._base.execute(query))

    def sent(self) -> list[str]:
        """Keys under way one by one."""
        return [key for (key,) in self._base.execute("SELECT key FROM sent ORDER BY key")]

    def next_part(self) -> int:
        """Number of the next part."""
        return self._fact("parts") + 1

    def open_parts(self) -> list[Part]:
        """Parts under way, oldest first."""
        query = "SELECT part, file, batch, requests FROM parts ORDER BY part"
        return [Part(*row) for row in self._base.execute(query)]

    def part_keys(self, part: str) -> list[str]:
        """Keys of a part in their order."""
        query = "SELECT key FROM part_keys WHERE part = ? ORDER BY number"
        return [key for (key,) in self._base.execute(query, (part,))]

    def in_open_part(self, key: str) -> bool:
        """Whether a key belongs to a part under way."""
        query = "SELECT 1 FROM part_keys WHERE key = ? LIMIT 1"
        return self._base.execute(query, (key,)).fetchone() is not None

    def close(self) -> None:
        """Close the file."""
        self._base.close()

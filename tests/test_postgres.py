"""Events out of a real PostgreSQL server: all of them, once, also those of a transaction that ends late."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("duckdb_extension_postgres_scanner", reason="needs duckdb-extension-postgres-scanner")
from conftest import REPOSITORY

from recgraph.store.db import Store

sys.path.insert(0, str(REPOSITORY / "examples"))
from postgres_events import TABLE, take

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Where a server of the tests' own is reached."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs PostgreSQL, e.g. Debian's package postgresql")
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # it does not run as root
    with (
        tempfile.TemporaryDirectory(prefix="recgraph-pg-", dir="/tmp") as name,
        socket.create_server(("127.0.0.1", 0)) as held,
    ):
        port = held.getsockname()[1]
        held.close()
        os.chmod(name, 0o777)
        data = f"{name}/data"
        subprocess.run(
            [programs[-1] / "initdb", "-D", data, "-A", "trust", "-U", "shop"], check=True, stdout=-3, cwd=name, **user
        )
        control = [str(programs[-1] / "pg_ctl"), "-D", data, "-w"]
        options = f"-p {port} -k {name} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run([*control, "-o", options, "-l", f"{name}/log", "start"], check=True, stdout=-3, cwd=name, **user)
        try:
            yield f"host=127.0.0.1 port={port} user=shop dbname=postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=-3, cwd=name, **user)


class Session:
    """A session of psql, so that a transaction can be left open."""

    def __init__(self, where: str) -> None:
        self.psql = subprocess.Popen(["psql", "-qAt", where], stdin=-1, stdout=-1, stderr=-2, text=True)

    def say(self, sql: str) -> None:
        assert self.psql.stdin is not None
        assert self.psql.stdout is not None
        self.psql.stdin.write(f"{sql};\n\\echo done\n")
        self.psql.stdin.flush()
        line = self.psql.stdout.readline()
        assert line == "done\n", line

    def close(self) -> None:
        self.psql.communicate(timeout=30)


def click(event_id: str, user_id: str, minute: int) -> str:
    values = f"'{event_id}', '{user_id}', '2026-01-01 10:{minute:02d}+01', 'click', 'I1', '', 3"
    return f"INSERT INTO events VALUES ({values})"  # noqa: S608 - the test's own


def test_an_event_that_is_committed_after_later_ones_is_not_lost_and_none_comes_twice(
    server: str, tmp_path: Path
) -> None:
    store, one, late = tmp_path / "shop.duckdb", Session(server), Session(server)
    one.say(TABLE)
    late.say("BEGIN")
    late.say(click("e0", "U1", 0))  # its number and its transaction come first
    for minute in range(1, 4):
        one.say(click(f"e{minute}", "U1", minute))
    assert take(server, store) == 0  # a transaction runs that began before them
    late.say("COMMIT")
    assert take(server, store) == 4
    one.say(click("e9", "U2", 9))
    store.with_suffix(".taken").write_text("0")  # as if it had been killed before it was noted what was taken
    assert take(server, store) == 1
    assert take(server, store) == 0
    one.close()
    late.close()
    with Store.open(store) as opened:
        assert [(event.ts.hour, event.ts.minute, event.position) for event in opened.history("U1")] == [
            (9, n, 3) for n in range(4)
        ]
        assert opened.counts()["events"] == 5


def test_the_example_is_a_command_and_a_wrong_address_shows_no_password(server: str, tmp_path: Path) -> None:
    wrong = server.replace("port=", "port=1").replace("127.0.0.1", "127.0.0.1 connect_timeout=2")
    command = [
        sys.executable,
        str(REPOSITORY / "examples" / "postgres_events.py"),
        wrong,
        str(tmp_path / "shop.duckdb"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "PGPASSWORD": "hunter2"}
    )
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr

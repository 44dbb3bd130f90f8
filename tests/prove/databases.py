# SPDX-License-Identifier: GPL-2.0
"""Trials of databases on ext4: every row that was committed has to be there after a cut of the power."""

import dataclasses
import subprocess
import tempfile
from pathlib import Path

from vbw.vm import VM

from .bench import Bench, until
from .cuts import EXT4, MOUNT, Cuts
from .systems import mounted
from .trials import trial

# Under this number the rows are acknowledged. The number of the first run is part of each.
ROWS, FIRST = 1 << 30, 1 << 40

SQLITE = "/usr/bin/sqlite3"
POSTGRES = "/usr/lib/postgresql/17/bin"
NOBODY = 65534


def _insert(bench: Bench, vm: VM, cuts: Cuts, statement: str, database: str) -> None:
    """Feed a database with statements, each a transaction, and cut; it prints "row" and the row's number."""
    relay = vm.guest.start(
        f"{{ while [ ! -e /tmp/stop ]; do echo \"{statement}\"; done; }} | {database} | "
        f"provetool relay ack={bench.port(vm)} run=1 block={ROWS}")
    switcher = vm.guest.start(
        "n=0; while [ ! -e /tmp/stop ]; do for mode in 'write through' 'write back'; do "
        "vbwtool set /sys/block/vda/cache_type \"$mode\"; n=$((n + 1)); usleep 20000; done; done; echo $n")
    until(lambda: bench.judge.acknowledged, "the first row", 120)
    for _ in range(cuts.most):
        cuts.take()
    vm.guest("touch /tmp/stop")
    bench.end_load(relay, bench.seconds + 120)
    bench.note("switches", int(switcher.wait().lines[-1]))
    vm.kill()
    cuts.check()
    bench.at_least("switches", bench.notes["switches"], 10)


def _sqlite(mode: str) -> None:
    @trial(f"sqlite-{mode}", what=f"SQLite ({mode}) on ext4, a transaction for each row; the guest switches; cuts")
    def rows(bench: Bench) -> None:
        vm = mounted(bench, EXT4, [SQLITE])
        query = (f"{SQLITE} {MOUNT}/db 'PRAGMA integrity_check;' | grep -vx ok; "
                 f"echo row {ROWS} $(({FIRST} + $({SQLITE} {MOUNT}/db 'SELECT coalesce(max(id), 0) FROM t;')))")
        vm.guest(f"{SQLITE} {MOUNT}/db 'PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, data);'"
                 f"; sync")
        _insert(bench, vm, Cuts(bench, EXT4, max(4, round(bench.seconds / 2)), query, [SQLITE]),
                "INSERT INTO t(data) VALUES (randomblob(700)); SELECT 'row ' || last_insert_rowid();",
                # FULL does not wait for the removal of a rollback journal, which is the commit.
                f"{SQLITE} -interactive -cmd 'PRAGMA synchronous=EXTRA;' {MOUNT}/db")


for _mode in ("wal", "delete"):
    _sqlite(_mode)


@trial("postgresql")
def postgresql(bench: Bench) -> None:
    """PostgreSQL on ext4, a transaction for each row; the guest switches; cuts, with data checksums."""
    bench.need_other_users()
    system = dataclasses.replace(EXT4, mib=192)
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    with tempfile.TemporaryDirectory(prefix="prove-pg-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "root" / "pg"
        data.mkdir(parents=True)
        for path in (data.parent, data):
            subprocess.run(["chown", f"{NOBODY}:{NOBODY}", path], check=True)
        subprocess.run([*as_nobody, f"{POSTGRES}/initdb", "-D", data, "-k", "--no-sync", "--locale=C", "-E", "UTF8",
                        "-A", "trust", "-U", "postgres", "--wal-segsize=1"], check=True, capture_output=True)
        with (data / "postgresql.conf").open("a") as config:
            config.write("shared_buffers = 8MB\njit = off\ndynamic_shared_memory_type = mmap\ntimezone = 'GMT'\n"
                         "log_timezone = 'GMT'\nwal_sync_method = fdatasync\n")
        subprocess.run([*as_nobody, f"{POSTGRES}/postgres", "--single", "-D", data, "postgres"], check=True,
                       input="CREATE TABLE t(id serial primary key, data text)\n", text=True, capture_output=True)
        binaries = [f"{POSTGRES}/postgres", f"{POSTGRES}/pg_checksums"]
        files = ["/usr/share/postgresql/17"]
        vm = mounted(bench, system, binaries, data.parent, files, memory_mb=1024)

    user = f"echo 'nobody:x:{NOBODY}:{NOBODY}::/tmp:/bin/sh' > /etc/passwd"
    single = f"su nobody -s /bin/sh -c '{POSTGRES}/postgres --single -D {MOUNT}/pg postgres' 2>/tmp/pg.log"
    query = (f"mkdir -p /etc; {user}; rm -f {MOUNT}/pg/postmaster.pid; "
             f"echo 'SELECT coalesce(max(id), 0) AS last FROM t' | {single} | "
             f"awk -F'\"' '/last = /{{ printf \"row {ROWS} %.0f\\n\", {FIRST} + $2 }}'; "
             f"su nobody -s /bin/sh -c '{POSTGRES}/pg_checksums --check -D {MOUNT}/pg' >/tmp/sums 2>&1 || "
             f"{{ cat /tmp/sums /tmp/pg.log; }}")
    vm.guest(f"mkdir -p /etc; {user}; chmod 1777 /tmp")
    _insert(bench, vm, Cuts(bench, system, max(4, round(bench.seconds / 2)), query, binaries, files, 1024),
            "INSERT INTO t(data) VALUES (repeat(md5(random()::text), 20)) RETURNING id",
            f"{single} | awk -F'\"' '/id = /{{ print \"row \" $2; fflush() }}'")

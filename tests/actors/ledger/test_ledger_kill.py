"""A writer that is killed at any moment leaves a ledger that balances and can be gone on with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.ledger.account import read_account
from actors.ledger.balance import check_balance
from actors.ledger.file import open_for_reading
from actors.ledger.ledger import Ledger

ROOT = Path(__file__).resolve().parents[3]
PROMPTS, SIZE = 6, 2
WRITER = f"""
import random, sys
from pathlib import Path
from actors.ledger.ledger import Ledger

# As a resumed run does: back to a checkpoint, then what is unfinished first. Prints each step after it is committed.
path, step, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
ledger = Ledger(path, num_prompts={PROMPTS}, samples_per_prompt={SIZE})
ledger.rollback(step)
position = ledger.position()
again, next_index = list(position.unfinished), position.next_index
print("begun", flush=True)
while True:
    step += 1
    ids = []
    for _ in range(4):
        index = again.pop(0) if again else next_index
        next_index = max(next_index, index + 1)
        epoch, place = divmod(index, {PROMPTS})
        ledger.admit(index, f"p-{{place}}", epoch, epoch * {SIZE}, {SIZE})
        for sample in range(epoch * {SIZE}, (epoch + 1) * {SIZE}):
            name = f"p-{{place}}#{{sample}}"
            if chance.random() < 0.1:
                ledger.reissue(name, "died")
            if chance.random() < 0.1:
                ledger.drop(name, "bad", step)
            else:
                ledger.ready(name, 9)
                ids.append(name)
    ledger.commit_step(step, ids)
    print(step, flush=True)
    if step % 3 == 0:
        ledger.mark_checkpoint(step)
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    chance = random.Random(0)
    done = undone = 0
    for kill in range(20):
        step = max(0, done - chance.randint(0, 3))  # the newest complete checkpoint is not always the newest step
        undone += done - step
        command = [sys.executable, "-c", WRITER, str(path), str(step), str(kill)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begun\n"
            with pytest.raises(subprocess.TimeoutExpired):  # it is killed somewhere in its loop, not when it waits
                writer.wait(timeout=chance.uniform(0.0, 0.1))
            os.kill(writer.pid, signal.SIGKILL)
            printed = writer.stdout.read().split()
        assert writer.returncode == -signal.SIGKILL
        told = int(printed[-1]) if printed else step
        with open_for_reading(path) as db:
            account, found = read_account(db), check_balance(db, PROMPTS, SIZE)
        assert (found.violations, found.num_lost, found.num_trained_twice) == ((), 0, 0)
        assert told <= account.last_step <= told + 1  # what was told is kept; one more may have been committed
        assert account.num_rollbacks == kill + 1
        assert account.num_undone_steps == undone
        done = account.last_step
    assert done > 20
    ledger = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    ledger.rollback(done)
    position = ledger.position()
    ledger.close()
    with open_for_reading(path) as db:
        account = read_account(db)
    assert sum(account.states.values()) == position.next_index * SIZE
    assert account.states["pending"] == len(position.unfinished) * SIZE
    assert account.states["in_flight"] == account.states["ready"] == 0

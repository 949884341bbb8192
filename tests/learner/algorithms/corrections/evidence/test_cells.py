"""What is remembered of answers, and what is forgotten."""

from __future__ import annotations

import numpy as np
import torch

from learner.algorithms.corrections.evidence.cells import CellMemory


def add(
    memory: CellMemory, keys: list[tuple[int, int]], scores: list[float], update: int = 0, **gold: float
) -> list[int]:
    prompts, answers = (np.array(column) for column in zip(*keys, strict=True))
    rows = memory.rows(prompts, answers, update)
    memory.count(rows, np.array(scores), np.full(len(keys), gold.get("gold", np.nan)))
    return [int(row) for row in rows]


def test_scores_of_one_answer_add_up_over_calls() -> None:
    memory = CellMemory(10_000)
    assert add(memory, [(1, 5), (2, 5), (1, 5)], [1.0, 0.0, 0.0]) == [0, 1, 0]
    assert add(memory, [(1, 6), (1, 5)], [1.0, 1.0], update=3, gold=1.0) == [2, 0]
    assert memory.num_scores.tolist() == [3.0, 1.0, 1.0]
    assert memory.sum_scores.tolist() == [2.0, 0.0, 1.0]
    assert memory.last_update.tolist() == [3, 0, 3]
    assert np.isnan(memory.gold).tolist() == [False, True, False]
    assert memory.row_of(2, 5) == 1
    assert memory.row_of(2, 6) == -1


def test_cells_of_the_same_prompts() -> None:
    memory = CellMemory(10_000)
    add(memory, [(1, 5), (2, 5), (1, 6), (3, 5), (1, 7)], [0.0] * 5)
    rows, numbers = memory.neighbours(np.array([3, 2, 0]))
    assert list(zip(rows.tolist(), numbers.tolist(), strict=True)) == [(3, 0), (0, 1), (2, 1), (4, 1)]


def test_it_grows_and_forgets_the_longest_unseen_but_labels_last() -> None:
    memory = CellMemory(2_000)
    add(memory, [(0, 1), (0, 2)], [1.0, 1.0], update=0, gold=1.0)
    for update in range(1, 21):
        add(memory, [(update, answer) for answer in range(150)], [1.0] * 150, update)
    assert len(memory) <= 2_000
    assert memory.gold[[memory.row_of(0, 1), memory.row_of(0, 2)]].tolist() == [1.0, 1.0]
    assert memory.row_of(1, 0) == -1
    assert all(memory.row_of(20, answer) >= 0 for answer in range(150))
    assert memory.prompt_keys[memory.row_of(20, 7)] == 20
    oldest = memory.last_update[2:].min()
    assert all(memory.row_of(update, 0) >= 0 for update in range(oldest + 1, 21))


def test_a_restored_memory_goes_on_alike() -> None:
    one, other = CellMemory(3_000), CellMemory(3_000)
    rng = np.random.default_rng(0)
    batches = [[(int(p), int(a)) for p, a in rng.integers(0, 60, (500, 2))] for _ in range(8)]
    for update, batch in enumerate(batches):
        if update == 4:
            other.load_state_dict(one.state_dict())
        for memory in (one, other)[: 1 + (update >= 4)]:
            add(memory, batch, [0.5] * 500, update)
    for name, column in one.state_dict().items():
        assert torch.equal(column.nan_to_num(9.0), other.state_dict()[name].nan_to_num(9.0))
    assert one.num_scores.sum() > 2_000

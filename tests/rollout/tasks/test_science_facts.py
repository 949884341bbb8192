"""The data files of the science task: complete, unambiguous, and consistent with what is known of them otherwise."""

from __future__ import annotations

import configparser
import re
from importlib.resources import files
from pathlib import Path

from rollout.tasks.science_facts import FILES, NUM_ELEMENTS, RELATIONS, read_facts, read_table, values_by_relation

NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
"""Atomic numbers that end a period."""


def test_elements_are_complete_and_lie_where_the_periodic_table_has_them() -> None:
    rows = read_table("elements")
    assert [int(row["number"]) for row in rows] == list(range(1, NUM_ELEMENTS + 1))
    for column in ("symbol", "name"):
        assert len({row[column] for row in rows}) == NUM_ELEMENTS
    assert all(re.fullmatch("[A-Z][a-z]?", row["symbol"]) and re.fullmatch("[a-z]+", row["name"]) for row in rows)
    for row in rows:
        number, period = int(row["number"]), int(row["period"])
        assert period == 1 + sum(number > last for last in NOBLE_GASES), row
        first, last = (0, *NOBLE_GASES)[period - 1], NOBLE_GASES[period - 1]
        inner = number in range(57, 72) or number in range(89, 104)
        if inner:
            group = ""
        elif number - first <= (1 if period == 1 else 2):
            group = str(number - first)
        else:
            group = str(18 - (last - number))
        assert row["group"] == group, row
        undecided = row["symbol"] in ("La", "Lu", "Ac", "Lr")
        block = "" if undecided else "f" if inner else "s" if group in ("1", "2") or number == 2 else "d"
        assert row["block"] == ("p" if not inner and number != 2 and int(group) > 12 else block), row


def test_spot_checks_against_common_knowledge() -> None:
    facts = read_facts(tuple(FILES))
    known = {
        ("symbol_of_element", "iron"): "Fe",
        ("symbol_of_number", "no.79"): "Au",
        ("number", "W"): "74",
        ("group", "Cl"): "17",
        ("block", "U"): "f",
        ("unit", "force"): "newton",
        ("symbol_of_unit", "pascal"): "Pa",
        ("value", "c"): "2.998e8",
        ("value", "N_A"): "6.022e23",
    }
    assert {key: facts[key] for key in known} == known
    assert ("group", "Eu") not in facts, "what is empty in the file is no fact"


def test_units_and_constants_are_unambiguous() -> None:
    units = read_table("units")
    assert len(units) == 28
    for column in ("quantity", "unit", "symbol"):
        assert len({row[column] for row in units}) == len(units)
    constants = read_table("constants")
    assert len({row["symbol"] for row in constants}) == len({row["name"] for row in constants}) == 20
    exact = {"c": 299792458, "h": 6.62607015e-34, "e": 1.602176634e-19, "k": 1.380649e-23, "N_A": 6.02214076e23}
    value = {row["symbol"]: float(row["value"]) for row in constants}
    assert all(abs(value[symbol] / number - 1) < 5e-4 for symbol, number in exact.items())
    derived = {
        "R": value["N_A"] * value["k"],
        "F": value["N_A"] * value["e"],
        "hbar": value["h"] / 6.283185307,
        "alpha": value["mu_0"] * value["c"] * value["e"] ** 2 / (2 * value["h"]),
        "eps_0": 1 / (value["mu_0"] * value["c"] ** 2),
        "mu_B": value["e"] * value["hbar"] / (2 * value["m_e"]),
        "a_0": value["hbar"] / (value["m_e"] * value["c"] * value["alpha"]),
        "R_inf": value["alpha"] ** 2 * value["m_e"] * value["c"] / (2 * value["h"]),
        "sigma": 2 * 3.14159265**5 * value["k"] ** 4 / (15 * value["h"] ** 3 * value["c"] ** 2),
    }
    assert all(abs(value[symbol] / number - 1) < 2e-3 for symbol, number in derived.items())


def test_facts_follow_the_options() -> None:
    few = read_facts(("elements",), num_elements=12)
    assert ("number", "Mg") in few and ("number", "Al") not in few
    assert {relation for relation, _ in few} == {name for name, known in RELATIONS.items() if known.topic == "elements"}
    assert values_by_relation(few)["block"] == ("s", "p")


def test_files_are_packaged_and_name_source_and_licence() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[3] / "setup.cfg", encoding="utf-8")
    shipped = setup["options.package_data"]["rollout.tasks"].split()
    assert shipped == ["facts/*.csv", "facts/README.md"]
    folder = files("rollout.tasks") / "facts"
    assert {entry.name for entry in folder.iterdir()} == {*FILES.values(), "README.md"}
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in FILES.values())
    assert "IUPAC" in readme and "BIPM" in readme and "CODATA" in readme and "CC0" in readme

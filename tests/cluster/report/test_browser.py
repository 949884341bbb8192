"""The page in a real Chromium: no errors, no network, and everything that can be clicked does what it says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.report.page.page import write_page
from cluster.report.run_record import read_run
from tests.cluster.report.chromium import Page, chromium_page, find_chromium
from tests.cluster.report.made_runs import CONFIG, Line, make_run
from tests.cluster.report.test_page import HARMFUL, traced

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]
DESKTOP, PHONE = (1280, 900), (390, 844)
COLOUR = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything, faults and harmful texts included."""
    folder = make_run(
        tmp_path_factory.mktemp("one") / "run",
        lambda step, line: {"rollout/truncated_frac": 0.5, "critic/coverage_q05": 0.04, "critic/coverage_q95": 0.9},
        lambda step, s: {**traced(step, s), "reference": HARMFUL if step == 3 else s["reference"]},
        events=({"kind": "worker", "text": "rollout-0 was lost"}, {"kind": "start", "level": "info", "text": HARMFUL}),
    )
    write_page([read_run(folder)], folder / "report.html")
    return folder / "report.html"


def worse_by(much: float) -> Callable[[int, Line], Line]:
    """A change of a made run: its clean reward is so much lower."""
    return lambda step, line: {"reward/clean_mean": line["reward/clean_mean"] - much}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods with three seeds each."""
    root = tmp_path_factory.mktemp("many")
    folders = []
    for method in ("dvpo", "grpo", "ppo"):
        for seed in (1, 2, 3):
            config = {**CONFIG, "name": f"seed-{seed}", "seed": seed, "algorithm": {"preset": method}}
            change = worse_by(0.01 * seed)
            folders.append(make_run(root / method / f"seed-{seed}", change, traced, config=config))
    write_page([read_run(folder) for folder in folders], root / "report.html")
    return root / "report.html"


async def change(page: Page, selector: str, value: object, event: str = "change") -> None:
    """Put a value into a control, as a person does."""
    await page.run(
        f"(() => {{ const c = document.querySelector({selector!r}); c.value = {value!r}; "
        f"c.dispatchEvent(new Event({event!r})); }})()"
    )


async def number(page: Page, selector: str) -> int:
    return int(await page.run(f"document.querySelectorAll({selector!r}).length"))


async def fits(page: Page) -> None:
    """No part is wider than the window, and nothing went wrong."""
    window = "document.documentElement.clientWidth"  # innerWidth grows with what is too wide
    wide = f"[...document.querySelectorAll('main *')].filter((e) => e.scrollWidth > {window} && !e.closest('.scroll'))"
    assert await page.run(f"{wide}.map((e) => e.outerHTML.slice(0, 120))") == []
    assert await page.run(f"document.documentElement.scrollWidth <= {window}")
    assert page.problems == [] and page.requests == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_a_run_is_clicked_through(size: tuple[int, int], dark: bool, one_run: Path, tmp_path: Path) -> None:
    async with chromium_page(tmp_path) as page:
        await page.open(one_run, *size, dark=dark)
        assert await page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert await number(page, ".finding") == 1
        assert await number(page, ".uplot canvas") >= 20
        before = await page.run(COLOUR)
        await page.run("document.getElementById('theme').click()")
        assert await page.run(COLOUR) != before

        # A curve: its numbers step by step with the keyboard, and as a table.
        await page.run("document.querySelector('#learning .plot').focus()")
        await page.press("ArrowRight")
        await page.press("ArrowRight")
        assert await page.run("document.querySelector('#learning .legend .at').textContent") == "at step 10"
        await page.run("document.querySelector('#learning figure details').open = true")
        await page.until("document.querySelectorAll('#learning figure table tr').length >= 5")
        await change(page, "input[type=range]", 0, "input")

        # The browser: sorted, searched, a token chosen with the keyboard, one trajectory kept beside another.
        first = "document.querySelector('.one h3').textContent"
        assert await page.run("document.querySelector('.list .what').textContent.includes('true')")
        await page.run("document.querySelector('.list button').focus()")
        shown = await page.run(first)
        await page.press("ArrowDown")
        assert await page.run(first) != shown
        await page.run("document.querySelector('.tok').focus()")
        await page.press("ArrowRight")
        await page.press("ArrowRight")
        assert await page.run("document.querySelectorAll('.tok')[2].getAttribute('aria-pressed')") == "true"
        assert await page.run("document.querySelector('.one dl').textContent.includes('after the update')")
        await page.run("document.querySelector('.one .head button').click()")
        await page.run("document.querySelectorAll('.list button')[5].click()")
        assert await number(page, ".one") == 2
        await change(page, "#trajectories select", "disagreement")
        await change(page, "input[type=search]", "p-3-", "input")
        listed = "[...document.querySelectorAll('.list .what')]"
        assert await page.run(f"{listed}.every((x) => x.textContent.includes('step 3'))")
        assert await number(page, "img") == 0  # of the harmful texts

        # Any metric.
        await change(page, "#metrics select", "policy/lr")
        assert await number(page, "#metrics .uplot canvas") == 1
        await page.run("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        await fits(page)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_a_comparison_opens(size: tuple[int, int], comparison: Path, tmp_path: Path) -> None:
    async with chromium_page(tmp_path) as page:
        await page.open(comparison, *size)
        assert await page.run("document.querySelector('h1').textContent") == "9 runs, 3 methods side by side"
        text = await page.run("document.getElementById('verdict').textContent")
        assert "algorithm.preset" in text
        legend = await page.run("[...document.querySelectorAll('#learning .legend')][0].textContent")
        assert all(name in legend for name in ("dvpo", "grpo", "ppo"))
        await page.run("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        await fits(page)


async def test_what_a_screen_reader_needs_is_there(one_run: Path, tmp_path: Path) -> None:
    """One main heading, no level left out, and a name for every control, picture and region that scrolls."""
    async with chromium_page(tmp_path) as page:
        await page.open(one_run, *DESKTOP)
        await page.run("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert await number(page, "h1") == 1 and await number(page, "main") == 1
        headings = "[...document.querySelectorAll('main h1, main h2, main h3, main h4')]"
        levels = await page.run(f"{headings}.map((h) => +h.tagName[1])")
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        named = "e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')"
        nameless = (
            "[...document.querySelectorAll('button, select, input, [role=img], [role=group], nav')]"
            f".filter((e) => !({named})).map((e) => e.outerHTML.slice(0, 80))"
        )
        assert await page.run(nameless) == []
        unreachable = (
            "[...document.querySelectorAll('.scroll')].filter((e) => e.tabIndex || !e.getAttribute('aria-label'))"
        )
        assert await page.run(f"{unreachable}.length") == 0
        ids = await page.run("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))

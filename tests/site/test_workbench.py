"""Dead letters, conversations, replays, schemas, agents and routers in a browser; docs/pages.md goes the same way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import httpx
import pytest
from playwright.async_api import Locator, Route, expect

from tests.processes import address, environment, running
from tests.service.sockets import Served, serving
from tests.site.conftest import MakeTab
from tests.site.live import Live
from tests.site.tab import SCREEN, Tab
from wowevent import Event, EventBus, EventSchema, Reject, SchemaRegistry, StormPolicy

pytestmark = pytest.mark.asyncio(loop_scope="session")

ITEMS = [{"sku": "tea-250", "count": 2, "price": 4.9}]
ROOT = Path(__file__).parents[2]
NEUTRAL = """(words) => {
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    for (const [word, other] of Object.entries(words)) node.data = node.data.replaceAll(word, other);
  }
}"""
PATIENCE = 20.0
REASON = "the shop forgets the sum of orders with a voucher"
UNSAFE = "12345678901234567890"  # a number that JavaScript would round


def order(number: int, *, total: float | None) -> dict[str, Any]:
    payload: dict[str, Any] = {"order": f"A-{number:04}", "customer": f"customer-{number}", "items": ITEMS}
    return {"topic": "order.placed", "payload": payload | ({} if total is None else {"sum": total})}


async def neutral(tab: Tab) -> None:
    """Takes out of what is shown where this machine has things, and its name: for pictures."""
    await tab.page.evaluate(NEUTRAL, {f"{ROOT}/": "", gethostname(): "shop-1"})


class Desk:
    """A tab at a service in this process, whose bus has a worker that rejects what it gets until it is told better."""

    def __init__(self, tab: Tab, bus: EventBus, served: Served) -> None:
        self.tab = tab
        self.bus = bus
        self.served = served
        self.well = False
        self.seen: list[Event] = []

    async def work(self, event: Event) -> None:
        if not self.well:
            raise Reject(f"no customer '{event.payload.get('customer')}'")
        self.seen.append(event)

    async def fail(self, *payloads: Any, **fields: Any) -> None:
        """Events that become dead letters."""
        await self.bus.publish_many([Event(topic="task.made", payload=each, **fields) for each in payloads])
        await self.bus.join(5)

    async def group(self) -> None:
        """The page of the one group that there is."""
        await self.tab.open("#/letters")
        await self.tab.page.get_by_role("table", name="Groups").get_by_role("link").click()
        await expect(self.tab.page.get_by_role("table", name="Dead letters")).to_be_visible()

    @property
    def dialog(self) -> Locator:
        return self.tab.page.get_by_role("dialog")

    def button(self, name: str) -> Locator:
        return self.tab.page.get_by_role("button", name=name)


@asynccontextmanager
async def desk(open_tab: MakeTab) -> AsyncIterator[Desk]:
    async with EventBus("memory://") as bus, serving(bus) as served:
        it = Desk(await open_tab(served.url), bus, served)
        await bus.subscribe("task.made", it.work, "worker")
        yield it


# ---------------------------------------------------------------- who has never seen it


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """Where a service of the test's own is."""
    with running(tmp_path, "wowevent", "serve", "--url", engine(tmp_path), "--http-port", "0", "--port", "0"):
        yield address(tmp_path)


def engine(home: Path) -> str:
    return f"sqlite:///{home}/events.db"


@asynccontextmanager
async def billing(home: Path, state: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """The agent, broken or mended, once it listens; calling what this yields is its next bill."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("billing.py")), engine(home), state, cwd=home,
        env=environment(home, PYTHONPATH=os.environ.get("PYTHONPATH", "")), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def said() -> str:
        assert process.stdout is not None
        return (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().strip()

    try:
        assert await said() == "ready"
        yield said
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)


@pytest.mark.timeout(240)  # ten pages, three of them looked at by axe three times
async def test_why_events_fail_and_how_they_are_sent_again(open_tab: MakeTab, service: str, tmp_path: Path) -> None:
    """The path of docs/pages.md, with nothing but what the pages say."""
    tab = await open_tab(service)
    async with httpx.AsyncClient(base_url=service) as client:
        async with billing(tmp_path, "broken") as billed:
            orders = [order(n, total=None if n in {3, 5, 6} else 9.8) for n in range(1, 8)]
            (await client.post("/events", json=orders)).raise_for_status()
            assert {await billed() for _ in range(4)} == {f"billed A-{n:04} 9.80" for n in (1, 2, 4, 7)}
            await see_why(tab)
            await correct_one(tab)
            assert await billed() == "billed A-0003 9.80"
        async with billing(tmp_path, "mended") as billed:
            await redeliver_the_rest(tab)
            assert {await billed() for _ in range(2)} == {"billed A-0005 9.80", "billed A-0006 9.80"}
        assert (await client.get("/dead-letters")).json()["dead_letters"] == []
    assert re.search(f"dead_letter resent .*reason='{REASON}'", (tmp_path / "err.txt").read_text())
    tab.quiet()


async def see_why(tab: Tab) -> None:
    await tab.open()
    await tab.reach("Dead letters")
    row = tab.page.get_by_role("table", name="Groups").get_by_role("row").filter(has_text="KeyError: 'sum'")
    await expect(row.get_by_role("cell").nth(3)).to_have_text("3")
    for text in ("handler error", "billing~order.placed", "order.placed"):
        await expect(row).to_contain_text(text)
    await tab.check("letters")
    await row.get_by_role("link").click()
    await expect(tab.heading()).to_have_text("KeyError: 'sum'")
    for text in (
        "3 dead letters of billing~order.placed",
        "The handler raised an error on every attempt.",
        "It broke in bill, line 12",
        'order, total = event.payload["order"], event.payload["sum"]',
        "None of these 3 payloads has such a field",
        "An event on the same topic that did not fail has it: sum: 9.8",
        "Traceback (most recent call last)",
    ):
        await expect(tab.page.locator("main")).to_contain_text(text)
    missing = tab.page.get_by_role("row").filter(has=tab.page.get_by_role("rowheader", name="sum missing"))
    await expect(missing.get_by_text("not there")).to_have_count(3)
    await neutral(tab)
    await tab.page.set_viewport_size({"width": SCREEN["width"], "height": 1500})  # so that a picture has all of it
    await tab.check("letters-group")


async def correct_one(tab: Tab) -> None:
    await tab.page.get_by_role("row").filter(has_text="A-0003").get_by_role("link", name="Look and correct").click()
    editor = tab.page.get_by_label("Payload", exact=True)
    resend = tab.page.get_by_role("button", name="Resend corrected")
    await expect(resend).to_be_disabled()
    before = await editor.input_value()
    await editor.fill(before[:-1])
    await expect(tab.page.get_by_text("This is no JSON")).to_be_visible()
    await expect(resend).to_be_disabled()
    await editor.fill(json.dumps({**json.loads(before), "sum": 9.8}, indent=2))
    await expect(tab.page.get_by_text("1 field changed")).to_be_visible()
    await neutral(tab)
    await tab.check("letters-correct")
    await resend.click()
    dialog = tab.page.get_by_role("dialog", name="Resend corrected?")
    await expect(dialog).to_contain_text("The corrected event goes to billing~order.placed")
    await dialog.get_by_role("button", name="Resend").click()
    await expect(dialog, "without a reason nothing is sent").to_be_visible()
    await dialog.get_by_label("Why is it corrected?").fill(REASON)
    await tab.picture("letters-resend-light")
    await dialog.get_by_role("button", name="Resend").click()
    await tab.shows("The corrected event is on its way")
    await tab.page.get_by_role("link", name="a new event").click()
    await expect(tab.heading()).to_have_text("order.placed")
    await tab.shows('"sum"')


async def redeliver_the_rest(tab: Tab) -> None:
    await tab.reach("Dead letters")
    await tab.page.get_by_role("link", name="KeyError: 'sum'").click()
    await expect(tab.page.get_by_role("table", name="Dead letters").get_by_role("row")).to_have_count(3)
    await tab.page.get_by_role("button", name="Redeliver all 2").click()
    dialog = tab.page.get_by_role("dialog", name="Redeliver?")
    await expect(dialog).to_contain_text("2 will be redelivered to billing~order.placed.")
    await tab.picture("letters-redeliver-light")
    await dialog.get_by_role("button", name="Redeliver").click()
    await expect(tab.page.get_by_text("2 dead letters redelivered.")).to_be_visible()
    await tab.shows("Nothing is left of this group")
    await tab.page.get_by_role("link", name="Dead letters", exact=True).first.click()
    await tab.shows("No dead letters")


# ---------------------------------------------------------------- dead letters


async def test_a_question_changes_nothing(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.fail({"customer": "a"})
        await its.group()
        for verb in ("Redeliver it", "Discard it"):
            await its.button(verb).click()
            await expect(its.dialog).to_contain_text("1 will be")
            await its.tab.page.keyboard.press("Escape")
            await expect(its.dialog).to_have_count(0)
        assert len(await its.bus.dead_letters.list()) == 1
        its.tab.quiet()


async def test_those_that_are_ticked_and_no_others(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.fail({"customer": "a"}, {"customer": "b"}, {"customer": "c"})
        await its.group()
        await its.tab.page.get_by_role("row").filter(has_text='"b"').get_by_role("checkbox").check()
        await its.button("Discard 1 ticked").click()
        await expect(its.dialog).to_contain_text("1 will be discarded of worker~task.made.")
        await its.dialog.get_by_role("button", name="Discard").click()
        await expect(its.tab.page.get_by_text("1 dead letter discarded.")).to_be_visible()
        left = await its.bus.dead_letters.list()
        assert [letter.event.payload["customer"] for letter in left] == ["a", "c"]
        await its.tab.page.get_by_label("Tick all 2 that are shown").check()
        its.well = True
        await its.button("Redeliver 2 ticked").click()
        await its.dialog.get_by_role("button", name="Redeliver").click()
        await its.tab.shows("Nothing is left of this group")
        assert {event.payload["customer"] for event in its.seen} == {"a", "c"}


async def test_a_rate_and_how_far_it_is(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.fail(*({"customer": "a", "n": n} for n in range(6)))
        its.well = True
        await its.group()
        await its.button("Redeliver all 6").click()
        await its.dialog.get_by_label("At most so many a second").fill("0.5")
        await its.dialog.get_by_role("button", name="Redeliver").click()
        card = its.tab.page.get_by_role("table", name="Redeliveries at a rate")
        await expect(card).to_contain_text("of 6")
        assert len(its.seen) < 6, "not at once"
        await card.get_by_role("button", name="Cancel").click()
        await its.dialog.get_by_role("button", name="Cancel the redelivery").click()
        await expect(card).to_contain_text("cancelled")
        assert await its.bus.dead_letters.list(), "the others stay"


async def test_numbers_stay_as_they_were_written(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.fail({"customer": "a", "account": int(UNSAFE), "share": 1.0})
        its.well = True
        await its.group()
        await its.tab.page.get_by_role("link", name="Look and correct").click()
        editor = its.tab.page.get_by_label("Payload", exact=True)
        await expect(editor).to_have_value(re.compile(UNSAFE))
        await editor.fill((await editor.input_value()).replace('"a"', '"b"'))
        await expect(its.tab.page.get_by_text("1 field changed")).to_be_visible()
        await its.button("Resend corrected").click()
        await its.dialog.get_by_label("Why").fill("mistyped")
        await its.dialog.get_by_role("button", name="Resend").click()
        await its.tab.shows("The corrected event is on its way")
        await its.bus.join(5)
        (event,) = its.seen
        assert json.dumps(event.payload) == f'{{"customer": "b", "account": {UNSAFE}, "share": 1.0}}'


async def test_a_browser_that_would_round_sends_nothing(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.tab.page.add_init_script("delete JSON.rawJSON")
        await its.fail({"customer": "a", "account": int(UNSAFE)})
        await its.group()
        await its.tab.page.get_by_role("link", name="Look and correct").click()
        await its.tab.shows("This browser would round a number of this payload")
        await expect(its.button("Resend corrected")).to_have_count(0)


async def test_what_failed_elsewhere_is_no_example_of_what_did_not(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:

        async def reject(event: Event) -> None:
            if event.payload["customer"] == "b":
                raise Reject("not of ours")

        await its.bus.subscribe("task.made", reject, "other")
        await its.fail({"customer": "a"})
        its.well = True
        await its.fail({"customer": "b"})
        await its.tab.open("#/letters?subscription=worker")
        await its.tab.page.get_by_role("table", name="Groups").get_by_role("link").click()
        await its.tab.shows("None on the same topic was found that did not fail.")
        await its.fail({"customer": "c"})
        await its.tab.page.reload()
        await its.tab.shows("and one on the same topic that is nobody's dead letter")
        await its.tab.shows('"c"')


@pytest.mark.parametrize(("count", "least", "most"), [(1000, 5, 50), (1001, 1, 3)])
async def test_many_letters_are_grouped_seldom(open_tab: MakeTab, count: int, least: int, most: int) -> None:
    async with desk(open_tab) as its:
        await its.fail({"customer": "a"})
        async with httpx.AsyncClient(base_url=its.served.url) as client:
            found = (await client.get("/dead-letters/groups")).json()
        found["groups"][0]["count"] = count
        asked: list[str] = []

        async def answer(route: Route) -> None:
            asked.append(route.request.url)
            await route.fulfill(json=found)

        await its.tab.page.route("**/dead-letters/groups*", answer)
        await its.tab.page.clock.install()
        await its.tab.open("#/letters")
        await its.tab.shows(f"{count:,} dead letters")
        for _ in range(20):
            await its.tab.page.clock.run_for(1000)
        assert least <= len(asked) <= most


async def test_what_does_not_fit_its_schema_is_said_in_the_dialog(open_tab: MakeTab) -> None:
    async with EventBus("memory://", registry=SchemaRegistry()) as bus, serving(bus) as served:
        its = Desk(await open_tab(served.url), bus, served)
        await bus.subscribe("task.made", its.work, "worker")
        await its.fail({"customer": "a"})
        await bus.register_schema(EventSchema(event_type="task.made", version="1.0.0", json_schema={"required": ["n"]}))
        await its.group()
        await its.tab.page.get_by_role("link", name="Look and correct").click()
        await its.tab.shows("Its schema: task.made 1.0.0")
        await its.tab.page.get_by_label("Payload", exact=True).fill('{"customer": "b"}')
        await its.button("Resend corrected").click()
        await its.dialog.get_by_label("Why").fill("mistyped")
        await its.dialog.get_by_role("button", name="Resend").click()
        await expect(its.dialog.get_by_role("alert")).to_contain_text("payload.n: is required")
        assert len(await bus.dead_letters.list()) == 1


async def test_an_error_is_text_and_no_markup(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.fail({"customer": "<img src=x onerror=alert(1)>"})
        await its.group()
        await its.tab.shows("<img src=x onerror=alert(1)>")
        assert await its.tab.page.locator("main img").count() == 0
        its.tab.quiet()


async def test_letters_are_narrowed(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.fail({"customer": "a"}, correlation_id="order-7")
        await its.fail({"customer": "b"})
        await its.tab.open("#/letters?correlation_id=order-7")
        await its.tab.shows("1 dead letter in 1 group")
        await its.tab.page.get_by_role("link", name="Show all").click()
        await its.tab.shows("2 dead letters in 1 group")
        await its.tab.page.get_by_label("Reason").select_option("timeout")
        await its.tab.shows("None of these")
        await its.tab.page.get_by_label("Reason").select_option("")
        await its.tab.page.get_by_label("Subscription or agent").select_option("worker~task.made")
        await its.tab.shows("2 dead letters in 1 group")


# ---------------------------------------------------------------- pure


TRACEBACK = r"""Traceback:
  File "/app/agent.py", line 3, in bill
    x["sum"]
    ^^^^
  File "/usr/lib/python3.11/json.py", line 9, in loads
KeyError: 1"""
FOREIGN = """  File "/usr/lib/python3.11/json.py", line 9, in loads
    ^^^
"""
STEPS = [(0, [1]), (1, []), (2, [2]), (1, [3])]  # depth, dead letters
DIAGNOSIS, SENDING = "workbench/diagnosis", "workbench/sending"

Case = tuple[str, str, list[Any], Any]
"""A module, a function of it, what it is given, what it answers; JSON that is to be read exactly stands as `Exact`."""


class Exact(str):
    """JSON as it was written."""

    __slots__ = ()


def edited(path: str, kind: str, before: str, after: str) -> dict[str, str]:
    return {"path": path, "kind": kind, "before": before, "after": after}


CASES: list[Case] = [
    (
        "json", "leaves", [{"a": {"b": 1}, "c": [{"d": 2}, []], "e f": None}],
        [["a.b", 1], ["c[0].d", 2], ["c[1]", []], ['["e f"]', None]],
    ),
    ("json", "leaves", [{}], [["", {}]]),
    (
        "json", "changes", [{"a": 1, "b": {"c": 2}}, {"b": {"c": 3}, "d": 4}],
        [edited("a", "removed", "1", ""), edited("b.c", "changed", "2", "3"), edited("d", "added", "", "4")],
    ),
    (
        "json", "changes", [Exact(f"[1.0, {UNSAFE}]"), Exact(f"[1, {UNSAFE[:-1]}1]")],
        [edited("[0]", "changed", "1.0", "1"), edited("[1]", "changed", UNSAFE, f"{UNSAFE[:-1]}1")],
    ),
    (
        "json", "changes", [{"a": {}}, {"a": {"b": 1}}],
        [edited("a", "removed", "{}", ""), edited("a.b", "added", "", "1")],
    ),
    ("json", "written", [Exact("[1e3, -0.0, 2.50, 7, 0.1]")], "[1e3,-0.0,2.50,7,0.1]"),
    (DIAGNOSIS, "named", ["KeyError: 'sum' in \"bill\" 'sum'"], ["sum", "bill"]),
    (
        DIAGNOSIS, "clues", ["KeyError: 'sum'", [{"a": 1}], [{"bill": {"sum": 2}}]],
        [{"field": "sum", "have": 0, "of": 1, "example": ["bill.sum", 2]}],
    ),
    (
        DIAGNOSIS, "clues", ["KeyError: 'sum'", [{"a": 1}], []],
        [{"field": "sum", "have": 0, "of": 1, "example": None}],
    ),
    (DIAGNOSIS, "clues", ["no 'luck'", [{"a": 1}], []], []),
    (DIAGNOSIS, "place", [TRACEBACK], {"file": "/app/agent.py", "line": "3", "name": "bill", "code": 'x["sum"]'}),
    (DIAGNOSIS, "place", [FOREIGN], {"file": "/usr/lib/python3.11/json.py", "line": "9", "name": "loads", "code": ""}),
    (DIAGNOSIS, "place", [""], None),
    (DIAGNOSIS, "headline", ["x" * 200], "x" * 160 + "…"),
    (DIAGNOSIS, "headline", ["\nfirst\nsecond"], "first"),
    (DIAGNOSIS, "headline", [""], "No error was given"),
    (
        "workbench/comparison", "compared",
        [[{"event": {"payload": each}} for each in ({"a": 1, "b": "1,5", "c": 1}, {"a": 2, "b": 1.5, "d": 1})], 1],
        [
            {"path": "b", "values": ['"1,5"', "1.5"], "differs": True, "telling": "text, not number"},
            {"path": "d", "values": ["", "1"], "differs": True, "telling": "missing"},
            {"path": "a", "values": ["1", "2"], "differs": True, "telling": ""},
            {"path": "c", "values": ["1", ""], "differs": True, "telling": ""},
        ],
    ),
    (
        "workbench/again", "lettersFrom",
        [[{"depth": depth, "failures": [{"id": id} for id in ids]} for depth, ids in STEPS], 1], [2],
    ),
    (
        SENDING, "told", [{"count": 5, "by_subscription": {"a": 2, "b": 3}}, "redelivered", "to"],
        "5 will be redelivered: 2 to a, 3 to b.",
    ),
    (SENDING, "told", [{"count": 0, "by_subscription": {}}, "discarded", "of"], "None is left to be discarded."),
]  # fmt: skip

CALL = """async ([module, name, given]) => {
  const { exact } = await import("/assets/json.js");
  const found = await import(`/assets/${module}.js`);
  return found[name](...given.map(([text, exactly]) => (exactly ? exact(text) : JSON.parse(text))));
}"""


async def test_what_is_worked_out_in_the_browser(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.tab.open()
        for module, name, given, found in CASES:
            told = [[each, True] if isinstance(each, Exact) else [json.dumps(each), False] for each in given]
            assert await its.tab.page.evaluate(CALL, [module, name, told]) == found, (name, given)


# ---------------------------------------------------------------- conversations


async def test_a_conversation_and_from_here_on(tab: Tab, live: Live) -> None:
    async with httpx.AsyncClient(base_url=live.url) as client:
        letter = (await client.get("/dead-letters?limit=1")).json()["dead_letters"][0]
    await tab.open()
    await tab.reach("Conversations")
    await tab.shows("Of late")
    await expect(tab.page.get_by_role("table", name="Conversations of late").get_by_role("row").nth(1)).to_be_visible()
    await tab.check()
    await tab.page.get_by_label("Id of any of its events").fill(letter["event"]["event_id"])
    await tab.page.get_by_role("button", name="Look", exact=True).click()
    await expect(tab.heading()).to_have_text("order.placed")
    step = tab.page.get_by_role("list", name="Events, cause before effect").get_by_role("listitem").first
    await expect(step).to_contain_text("billing~order.placed: KeyError: 'sum' after 2 attempts")
    await step.get_by_role("button", name="from here").click()
    dialog = tab.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("1 will be redelivered to billing~order.placed.")
    await dialog.get_by_role("button", name="Redeliver").click()
    await expect(tab.page.get_by_text("1 dead letter redelivered.")).to_be_visible()
    tab.quiet()


async def test_a_tree_of_several_agents(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        root = await several(its.bus)
        await its.tab.open(f"#/conversations/{root.event_id}")
        steps = its.tab.page.get_by_role("list", name="Events, cause before effect").get_by_role("listitem")
        await expect(steps).to_have_count(6)
        await expect(steps.nth(1)).to_contain_text("plan.step")
        await expect(steps.filter(has_text="paint.done: no paint")).to_have_count(1)
        await its.tab.check("conversation")
        await its.tab.page.get_by_role("button", name="Failures").click()
        await expect(steps).to_have_count(1)
        await its.tab.page.get_by_role("button", name="All", exact=True).click()
        await steps.first.get_by_role("button", name="from here").click()
        await expect(its.dialog).to_contain_text("1 will be redelivered to painter~paint.done.")
        await its.dialog.get_by_role("button", name="Cancel").click()
        its.tab.quiet()


async def several(bus: EventBus) -> Event:
    """A root, two steps each with a result, and one more whose handler fails; the root."""

    async def plan(event: Event) -> None:
        for n in range(2):
            await bus.publish(Event(topic="plan.step", payload={"n": n}, source_agent="planner"))
            await asyncio.sleep(0.04)

    async def work(event: Event) -> None:
        await asyncio.sleep(0.05)
        await bus.publish(Event(topic="paint.done" if event.payload["n"] else "wall.done", source_agent="builder"))

    async def paint(event: Event) -> None:
        raise Reject("paint.done: no paint")

    async def rest(event: Event) -> None:
        await bus.publish(Event(topic="house.done", source_agent="boss", target_agent="planner"))

    await bus.subscribe("plan.made", plan, "planner")
    await bus.subscribe("plan.step", work, "builder")
    await bus.subscribe("paint.done", paint, "painter")
    await bus.subscribe("wall.done", rest, "boss")
    root = Event(topic="plan.made", payload={"house": 7}, source_agent="boss")
    await bus.publish(root)
    await bus.join(5)
    return root


async def test_a_long_conversation_comes_in_parts(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.bus.publish_many([Event(topic="long.talk", correlation_id="talk-1") for _ in range(301)])
        await its.tab.open("#/conversations/talk-1")
        steps = its.tab.page.get_by_role("list", name="Events, cause before effect").get_by_role("listitem")
        await its.tab.shows("300 of 301 are shown")
        await expect(steps).to_have_count(300)
        await its.button("Show more").click()
        await expect(steps).to_have_count(301)


async def test_where_nothing_failed_the_event_is_published_again(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        its.well = True
        await its.bus.publish(first := Event(topic="task.made", payload={"n": 1}))
        await its.bus.join(5)
        await its.tab.open(f"#/conversations/{first.event_id}")
        await its.button("from here").click()
        await expect(its.dialog).to_contain_text("published again as a new one, on task.made")
        await its.dialog.get_by_label("Topic").fill("sandbox.task")
        await expect(its.dialog).to_contain_text("published again as a new one, on sandbox.task")
        await its.dialog.get_by_role("button", name="Publish again").click()
        await expect(its.tab.page.get_by_text("The event is published again.")).to_be_visible()
        await expect(its.tab.page.get_by_role("listitem").filter(has_text="sandbox.task")).to_contain_text("replay")
        assert len(its.seen) == 1, "who handled it does not get it again"


async def test_a_parked_conversation_is_released(open_tab: MakeTab) -> None:
    async with EventBus("memory://", storms=StormPolicy(max_hops=3)) as bus, serving(bus) as served:
        tab = await open_tab(served.url)

        async def echo(event: Event) -> None:
            await bus.publish(Event(topic="echo.back", source_agent="echo"))

        await bus.subscribe("echo.back", echo, "echo")
        await bus.publish(Event(topic="echo.back", correlation_id="loop-1"))
        await bus.join(5)
        await tab.open("#/conversations")
        await expect(tab.page.get_by_role("table", name="Parked conversations")).to_contain_text("max_hops")
        await tab.check()
        await tab.page.get_by_role("button", name="Release").click()
        await tab.page.get_by_role("dialog").get_by_role("button", name="Release").click()
        await expect(tab.page.get_by_text("The conversation is released.")).to_be_visible()
        await expect(tab.page.get_by_role("table", name="Parked conversations")).to_have_count(0)
        assert bus.storms.list() == []
        tab.quiet()


# ---------------------------------------------------------------- replays


async def test_a_replay_into_a_sandbox(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        its.well = True
        moments = [Event(topic="order.made", payload={"n": n}, timestamp=f"2030-01-01T12:{n:02}:00Z") for n in range(4)]
        await its.bus.publish_many(moments)
        await its.tab.open()
        await its.tab.reach("Replays")
        await its.tab.shows("No replays yet")
        await its.tab.page.get_by_label("Topics").fill("order.made")
        await expect(its.tab.page.get_by_label("Into the topic")).to_have_value("sandbox.order.made")
        await its.tab.page.get_by_label("How fast").select_option("1")
        await its.button("Replay…").click()
        await expect(its.dialog).to_contain_text(
            "4 events will be published again into sandbox.order.made, as far apart as they were."
        )
        await its.dialog.get_by_role("button", name="Replay", exact=True).click()
        row = its.tab.page.get_by_role("table", name="Replays").get_by_role("row").nth(1)
        await expect(row).to_contain_text("1 of 4")
        await its.tab.check("replays")
        for verb, state in (("Pause", "paused"), ("Resume", "running")):
            await row.get_by_role("button", name=verb).click()
            await its.dialog.get_by_role("button", name=verb).click()
            await expect(row).to_contain_text(state)
        await row.get_by_role("button", name="Cancel").click()
        await its.dialog.get_by_role("button", name="Cancel the replay").click()
        await expect(row).to_contain_text("cancelled")
        copies = [stored.event async for stored in its.bus.history("sandbox.#")]
        assert [event.replay_of for event in copies] == [moments[0].event_id]
        its.tab.quiet()


async def test_a_replay_elsewhere_says_who_gets_it(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.tab.open("#/replays?pattern=order.*")
        topic = its.tab.page.get_by_label("Into the topic")
        await expect(topic).to_have_value("sandbox.replay")
        await topic.fill("task.made")
        await its.tab.shows("Its subscribers handle them as any event.")
        await its.button("Replay…").click()
        await expect(its.dialog).to_contain_text("0 events will be published again into task.made at once.")
        await expect(its.dialog).to_contain_text("All who subscribe to that topic handle them.")


@pytest.mark.parametrize(("most", "said"), [("", "1,000 events or more"), ("7", "7 events")])
async def test_a_long_range_is_counted_to_a_thousand(open_tab: MakeTab, most: str, said: str) -> None:
    async with desk(open_tab) as its:
        await its.bus.publish_many([Event(topic="long.range") for _ in range(1001)])
        await its.tab.open("#/replays?pattern=long.range")
        await its.tab.page.get_by_label("At most").fill(most)
        await its.button("Replay…").click()
        await expect(its.dialog).to_contain_text(f"{said} will be published again into sandbox.long.range at once.")


# ---------------------------------------------------------------- schemas


async def test_schemas_are_checked_registered_and_removed(tab: Tab, live: Live) -> None:
    dialog = tab.page.get_by_role("dialog")
    paid = {"event_type": "bill.paid", "version": "1.0.0", "json_schema": {"required": ["to"]}, "description": "paid"}
    async with httpx.AsyncClient(base_url=live.url) as client:
        (await client.post("/schemas", json=paid)).raise_for_status()
        await tab.open()
        await tab.reach("Schemas")
        await tab.check()
        await tab.page.get_by_role("link", name="bill.paid").click()
        await expect(tab.page.get_by_role("heading", name="Version 1.0.0")).to_be_visible()
        await tab.page.get_by_label("Version", exact=True).fill("1.1.0")
        await tab.page.get_by_label("JSON Schema").fill('{"required": ["to", "sum"]}')
        await tab.page.get_by_role("button", name="Check").click()
        await tab.shows("events that fit the version before it may be refused")
        await tab.shows("payload.sum")
        await tab.page.set_viewport_size({"width": SCREEN["width"], "height": 1100})
        await tab.check("schema")
        await tab.page.get_by_role("button", name="Register").click()
        await expect(dialog).to_contain_text("payload.sum")
        await dialog.get_by_role("button", name="Register").click()
        await expect(tab.page.get_by_role("heading", name="Version 1.1.0")).to_be_visible()
        await tab.page.get_by_label("Shown version").select_option("1.0.0")
        await tab.page.get_by_role("button", name="Remove 1.0.0").click()
        await dialog.get_by_role("button", name="Remove").click()
        await expect(tab.page.get_by_text("The schema is removed.")).to_be_visible()
        left = (await client.get("/schemas?event_type=bill.paid")).json()["schemas"]
        assert [each["version"] for each in left] == ["1.1.0"]
    tab.quiet()


# ---------------------------------------------------------------- agents and routers


async def test_agents_and_their_pause(tab: Tab, live: Live) -> None:
    await tab.open()
    await tab.reach("Agents")
    table = tab.page.get_by_role("table", name="Agents")
    row = table.get_by_role("row").filter(has=tab.page.get_by_role("cell", name="stock", exact=True))
    await expect(row).to_contain_text("online")
    await expect(table.get_by_role("row").filter(has_text="archive")).to_contain_text("nobody serves it")
    await expect(tab.page.get_by_role("table", name="Schedules")).to_contain_text("report.due")
    await neutral(tab)
    await tab.check("agents")
    await row.get_by_role("button", name="Pause").click()
    dialog = tab.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Nothing is handed to stock")
    await dialog.get_by_label("How long").select_option("600")
    await dialog.get_by_label("Why").fill("stocktaking")
    await dialog.get_by_role("button", name="Pause").click()
    await expect(row).to_contain_text("stocktaking")
    async with httpx.AsyncClient(base_url=live.url) as client:
        pauses = (await client.get("/pauses")).json()["pauses"]
    held = next(each for each in pauses if each["name"] == "stock")
    assert held["scope"] == "agent"
    assert held["until"] - held["since"] == pytest.approx(600, abs=2)
    await row.get_by_role("button", name="Resume").click()
    await dialog.get_by_role("button", name="Resume").click()
    await expect(row.get_by_role("button", name="Pause")).to_be_visible()
    tab.quiet()


async def test_a_schedule_is_removed(open_tab: MakeTab) -> None:
    async with desk(open_tab) as its:
        await its.bus.schedules.add("sweep", "cache.sweep", {}, every=600)
        await its.tab.open("#/agents")
        await expect(its.tab.page.get_by_role("table", name="Schedules")).to_contain_text("every 10 min")
        await its.button("Remove").click()
        await its.dialog.get_by_role("button", name="Remove").click()
        await its.tab.shows("No schedules")
        assert await its.bus.schedules.list() == []


async def test_routers_and_their_clients(tab: Tab) -> None:
    await tab.open()
    await tab.reach("Routers")
    clients = tab.page.get_by_role("table", name="Clients")
    await expect(clients).to_contain_text("wall")
    await neutral(tab)
    await tab.check("routers")

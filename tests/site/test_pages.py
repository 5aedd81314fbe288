"""Every page in a browser, on a live system: what it shows, what it asks before it changes something, who may look."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import expect

from tests.service.guarded import Guarded
from tests.service.sockets import serving
from tests.site.conftest import MakeTab
from tests.site.live import Live
from tests.site.tab import PHONE, Tab
from wowevent import Event, EventBus, rewind
from wowevent.broker import Subscription

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPARE = "spare~spare.*"


@asynccontextmanager
async def spare(live: Live) -> AsyncIterator[EventBus]:
    """A bus of the test's own on the live system's engine, and a subscription with three events that wait."""
    async with EventBus(live.engine) as bus:
        await bus.broker.declare(Subscription(id=SPARE, agent="spare", patterns=("spare.*",)))
        await bus.publish_many([Event(topic="spare.part", payload={"n": n}) for n in range(3)])
        yield bus
        await bus.remove(SPARE)


async def shown(bus: EventBus, id: str) -> Any:
    return next(info for info in await bus.subscriptions() if info.subscription.id == id)


# ---------------------------------------------------------------- each page


async def test_the_overview(tab: Tab) -> None:
    await tab.open()
    await expect(tab.heading()).to_have_text("Overview")
    for text in ("Published", "sqlite", "healthy", "KeyError: 'sum'", "archive~order.#: not served", "order.placed"):
        await tab.shows(text)
    await expect(tab.page.locator("canvas")).to_have_count(2)
    await expect(tab.page.get_by_role("img", name=re.compile("Published [0-9.]+, Delivered"))).to_be_visible()
    await tab.settle(20)
    await tab.check("overview")
    await tab.page.get_by_role("link", name="KeyError: 'sum'").click()
    await expect(tab.heading()).to_have_text("KeyError: 'sum'")


async def test_events_as_they_come(tab: Tab, api: httpx.AsyncClient) -> None:
    await tab.open()
    await tab.reach("Events")
    await tab.shows("Listening")
    await tab.shows("order.placed")
    await tab.settle(6)
    await tab.check("events")
    await tab.page.get_by_label("Topics").fill("parcel.*")
    await tab.shows("Nothing yet")
    await tab.shows("Listening")
    await api.post("/events", json={"topic": "parcel.sent", "payload": {"to": "<img src=x onerror=alert(1)>"}})
    await tab.shows("parcel.sent")
    await tab.shows('{"to":"<img src=x onerror=alert(1)>"}')
    assert await tab.page.locator("main img").count() == 0, "a payload is text"
    await expect(tab.page.get_by_role("table", name="Live events").get_by_role("row")).to_have_count(2)
    tab.quiet()


async def test_the_tail_is_held(tab: Tab, api: httpx.AsyncClient) -> None:
    await tab.open("#/events?pattern=held.*")
    await tab.shows("Listening")
    await tab.page.get_by_role("button", name="Hold").click()
    await api.post("/events", json=[{"topic": "held.back"}] * 3)
    await tab.shows("3 came since")
    await expect(tab.page.locator("tbody tr")).to_have_count(0)
    await tab.page.get_by_role("button", name="Go on").click()
    await expect(tab.page.locator("tbody tr")).to_have_count(3)


async def test_the_history_has_pages_the_newest_first(tab: Tab, api: httpx.AsyncClient) -> None:
    await api.post("/events", json=[{"topic": "past.event", "payload": {"n": n}} for n in range(60)])
    await tab.open()
    await tab.reach("Events")
    await tab.page.get_by_role("button", name="History").click()
    await tab.page.get_by_label("Topics").fill("past.*")
    rows = tab.page.locator("tbody tr")
    await expect(rows.first).to_contain_text('{"n":59}')
    await tab.shows("Page 1")
    await tab.check("history")
    await tab.page.get_by_role("button", name="Older").click()
    await expect(rows).to_have_count(10)
    await expect(rows.last).to_contain_text('{"n":0}')
    await tab.page.get_by_role("button", name="Newer").click()
    await expect(rows.first).to_contain_text('{"n":59}')
    await tab.page.get_by_role("button", name="Oldest first").click()
    await expect(rows.first).to_contain_text('{"n":0}')
    await tab.page.get_by_role("button", name="Later").click()
    await expect(rows.last).to_contain_text('{"n":59}')
    await tab.page.get_by_role("button", name="Earlier").click()
    await expect(rows.first).to_contain_text('{"n":0}')
    await tab.page.get_by_label("Correlation id").fill("nobody")
    await tab.shows("No event fits")


KOLKATA = timezone(timedelta(hours=5, minutes=30), "Asia/Kolkata")


async def next_second() -> datetime:
    """The moment that a second was over, a little later."""
    now = time.time()
    await asyncio.sleep(1.05 - now % 1)
    return datetime.fromtimestamp(int(now) + 1, UTC)


async def test_the_history_between_two_moments_of_the_clock_of_who_looks(tab: Tab, api: httpx.AsyncClient) -> None:
    moments: list[datetime] = []
    for n in range(3):
        await api.post("/events", json={"topic": "moment.event", "payload": {"n": n}})
        moments.append(await next_second())
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    session = await tab.page.context.new_cdp_session(tab.page)
    await session.send("Emulation.setTimezoneOverride", {"timezoneId": KOLKATA.tzname(None)})
    await tab.open("#/events?view=history&pattern=moment.*")
    rows = tab.page.locator("tbody tr")
    await expect(rows).to_have_count(3)
    await tab.page.get_by_role("button", name="Between").click()
    fields = [tab.page.get_by_label(f"Stored {word}") for word in ("from", "until")]
    typed = [moment.astimezone(KOLKATA).strftime("%Y-%m-%dT%H:%M:%S").removesuffix(":00") for moment in moments]
    for field, text in zip(fields, typed, strict=False):
        await field.fill(text)
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text('{"n":1}')
    await expect(rows).to_contain_text(moments[0].astimezone(KOLKATA).strftime("%H:%M:"))
    said = parse_qs(urlsplit([url for url in asked if "/events?" in url][-1]).query)
    iso = [moment.strftime("%Y-%m-%dT%H:%M:%S.000Z") for moment in moments]
    assert (said["order"], said["stored_from"], said["stored_until"]) == (["newest"], [iso[0]], [iso[1]])
    await tab.page.reload()
    await expect(rows).to_have_count(1)
    for field, text in zip(fields, typed, strict=False):
        await expect(field).to_have_value(text)
    await tab.check("between")
    await tab.page.get_by_role("button", name="Oldest first").click()
    await expect(rows).to_have_count(1)
    await fields[0].fill("")
    await expect(rows).to_have_count(2)


async def test_a_page_of_what_is_rare_says_that_it_looked_at_a_part(
    open_tab: MakeTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewind, "LOOKED", 100)
    async with EventBus("memory://") as bus, serving(bus) as served:
        await bus.publish_many([Event(topic="rare.one" if n == 0 else "task.created") for n in range(150)])
        tab = await open_tab(served.url)
        await tab.open("#/events?view=history&pattern=rare.*")
        await tab.shows("None of the events that were looked at fits.")
        await tab.page.get_by_role("button", name="Older").click()
        await expect(tab.page.locator("tbody tr")).to_have_count(1)
        await expect(tab.page.get_by_role("button", name="Older")).to_be_disabled()


async def test_a_filter_that_is_none_is_answered_by_the_service(tab: Tab) -> None:
    await tab.open("#/events?pattern=a..b")
    await expect(tab.page.get_by_role("alert")).to_contain_text("a..b")
    await expect(tab.page.get_by_text("Not listening")).to_be_visible()


async def test_an_event_is_published_and_looked_at(tab: Tab) -> None:
    await tab.open("#/events?pattern=order.*")
    await tab.shows("Listening")
    await tab.page.get_by_role("button", name="Publish").click()
    dialog = tab.page.get_by_role("dialog", name="Publish an event")
    await dialog.get_by_label("Topic").fill("order.placed")
    await dialog.get_by_label("Payload").fill('{"order": "B-1", "customer": "me"')
    await dialog.get_by_role("button", name="Publish").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("The payload is no JSON")
    await dialog.get_by_label("Payload").fill('{"order": "B-1", "customer": "me", "sum": 12.5}')
    await tab.check("publish")
    await dialog.get_by_role("button", name="Publish").click()
    await expect(tab.page.get_by_role("status").filter(has_text="It goes to 3 of the subscriptions.")).to_be_visible()
    await tab.page.locator("tbody tr").filter(has_text="B-1").get_by_role("link").click()
    await expect(tab.heading()).to_have_text("order.placed")
    for text in ('"B-1"', "billing~order.placed", "stock~order.placed", "handled"):
        await tab.shows(text)
    matching = tab.page.locator("section").filter(has_text="Subscriptions that match")
    await expect(matching.get_by_role("listitem").filter(has_text="archive~order.#")).to_contain_text(
        "not seen to have it"
    )
    await tab.check("event")


async def test_why_an_event_failed(tab: Tab, api: httpx.AsyncClient) -> None:
    letter = (await api.get("/dead-letters?limit=1")).json()["dead_letters"][0]
    await tab.open(f"#/events/{letter['event']['event_id']}")
    for text in ("1 dead letter", "KeyError: 'sum'", "failed, tried again", "see why, and send it again"):
        await tab.shows(text)
    await tab.check()


async def test_an_event_that_is_not_there(tab: Tab) -> None:
    await tab.open("#/events/0199b3a1-0000-7000-8000-000000000000")
    await expect(tab.page.get_by_role("alert")).to_be_visible()


async def test_subscriptions(tab: Tab) -> None:
    await tab.open()
    await tab.reach("Subscriptions")
    for text in ("billing", "served", "not served", "newsletter.#", "the new texts are not ready"):
        await tab.shows(text)
    table = tab.page.get_by_role("table", name="Subscriptions")
    await expect(table.get_by_role("row").filter(has_text="stock")).to_contain_text(re.compile(r"[1-9][0-9.]*/s"))
    await expect(table.get_by_role("row").filter(has_text="billing")).to_contain_text(
        re.compile("[1-9][0-9]?% fail"), timeout=20_000
    )
    await tab.check("subscriptions")
    await tab.page.get_by_label("Find by id, agent or topic").fill("mail")
    await expect(tab.page.get_by_role("table", name="Subscriptions").get_by_role("row")).to_have_count(2)
    await tab.page.get_by_role("link", name="mailer").click()
    await expect(tab.heading()).to_have_text("mailer~bill.sent")
    await expect(
        tab.page.get_by_role("img", name=re.compile("Events a second. Now: Handled [0-9.]+, Failed 0"))
    ).to_be_visible()
    await tab.settle(12)
    await tab.check("subscription")


async def test_a_page_that_is_not_there(tab: Tab) -> None:
    await tab.open("#/nothing")
    await expect(tab.heading()).to_have_text("No such page")
    await tab.page.get_by_role("link", name="To the overview").click()
    await expect(tab.heading()).to_have_text("Overview")


# ---------------------------------------------------------------- what changes something


async def test_every_change_asks_first(tab: Tab, live: Live) -> None:
    async with spare(live) as bus:
        await tab.open(f"#/subscriptions/{SPARE.replace('*', '%2A')}")
        button, dialog = tab.page.get_by_role("button", name=f"Pause {SPARE}"), tab.page.get_by_role("dialog")
        await button.click()
        await expect(dialog).to_contain_text("No process is given its events until it is resumed.")
        await tab.page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        await button.click()
        await dialog.get_by_role("button", name="Cancel").click()
        answer = await tab.page.request.get(f"{live.url}/subscriptions/{SPARE.replace('*', '%2A')}")
        assert not (await answer.json())["paused"], "nothing was changed by a question"
        await button.click()
        await dialog.get_by_role("button", name="Pause").click()
        await tab.shows("paused")
        assert (await bus.pauses())[0].name == SPARE
        await tab.page.get_by_role("button", name=f"Resume {SPARE}").click()
        await expect(dialog).to_contain_text("3 events that wait are given to whoever serves it.")
        await dialog.get_by_role("button", name="Resume").click()
        await tab.page.get_by_role("button", name="Purge").click()
        await expect(dialog).to_contain_text("3 events that wait are dropped")
        await tab.check("question")
        await dialog.get_by_role("button", name="Purge").click()
        await expect(tab.page.get_by_text("3 events dropped.")).to_be_visible()
        assert (await shown(bus, SPARE)).ready == 0
        await tab.page.get_by_role("button", name="Remove").click()
        await dialog.get_by_role("button", name="Remove").click()
        await expect(tab.heading()).to_have_text("Subscriptions")
        assert SPARE not in {info.subscription.id for info in await bus.subscriptions()}
    tab.quiet()


async def test_a_pause_with_an_end_and_a_reason(tab: Tab, api: httpx.AsyncClient) -> None:
    await tab.open("#/subscriptions")
    await tab.page.get_by_role("button", name="Pause…").click()
    dialog = tab.page.get_by_role("dialog", name="Pause")
    await dialog.get_by_label("Which").fill("nobody-yet")
    await expect(dialog).to_contain_text("Agent nobody-yet is given nothing")
    await dialog.get_by_label("For how many minutes").fill("5")
    await dialog.get_by_label("Why").fill("a test")
    await dialog.get_by_role("button", name="Pause").click()
    row = tab.page.get_by_role("table", name="Pauses").get_by_role("row").filter(has_text="nobody-yet")
    await expect(row).to_contain_text("a test")
    held = {each["name"]: each for each in (await api.get("/pauses")).json()["pauses"]}
    assert held["nobody-yet"]["until"] - held["nobody-yet"]["since"] == pytest.approx(300, abs=2)
    await row.get_by_role("button", name="Resume nobody-yet").click()
    await tab.page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(row).to_have_count(0)
    tab.quiet()


async def test_what_the_service_refuses_stays_in_the_dialog(tab: Tab) -> None:
    await tab.open("#/subscriptions")
    await tab.page.get_by_role("button", name="Pause…").click()
    dialog = tab.page.get_by_role("dialog", name="Pause")
    await dialog.get_by_label("What").select_option("subscription")
    await dialog.get_by_label("Which").fill("unheard-of")
    await dialog.get_by_role("button", name="Pause").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("unheard-of")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)


# ---------------------------------------------------------------- who looks


@asynccontextmanager
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[Guarded, str]]:
    """A service that asks for tokens, and where it is."""
    async with EventBus("memory://") as bus, serving(bus) as served:
        await bus.publish(Event(topic="task.created", payload={"n": 1}))
        doors = Guarded(bus, tmp_path / "tokens.json")
        served.app.state.keyring = doors.keyring
        yield doors, served.url


async def test_a_token_is_asked_for(open_tab: MakeTab, tmp_path: Path) -> None:
    async with guarded(tmp_path) as (doors, url):
        tab = await open_tab(url)
        secret = doors.token("ops", admin=("#",), subscribe=("#",), replay=("#",), dead_letters=("#",))
        await tab.open("#/events?view=history")
        await expect(tab.heading()).to_have_text("Show a token")
        await expect(tab.page.get_by_text("task.created")).to_have_count(0)
        tab.said.clear()  # a browser says each 401 itself
        await tab.check("token")
        await tab.page.get_by_label("Token").fill("wow_wrong")
        await tab.page.get_by_role("button", name="Continue").click()
        await expect(tab.page.get_by_text("The service does not take this token")).to_be_visible()
        await tab.page.get_by_label("Token").fill(secret)
        await tab.page.get_by_role("button", name="Continue").click()
        await tab.shows("task.created")
        kept = await tab.page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href]")
        assert not any(secret in each for each in kept), "the token is the tab's alone"
        await tab.page.reload()
        await tab.shows("task.created")
        doors.revoke(secret)
        doors.keyring.refresh()
        await tab.page.get_by_role("button", name="Look again").click()
        await expect(tab.heading()).to_have_text("Show a token")


async def test_what_a_token_may_not_do_is_said_by_the_service(open_tab: MakeTab, tmp_path: Path) -> None:
    async with guarded(tmp_path) as (doors, url):
        tab = await open_tab(url)
        await tab.page.add_init_script(
            f"sessionStorage.setItem('wowevent.token', {json.dumps(doors.token('reader', subscribe=('task.*',)))})"
        )
        await tab.open("#/events")
        await expect(tab.page.get_by_role("alert")).to_contain_text("this token does not grant subscribe on '#'")
        await tab.page.get_by_label("Topics").fill("task.*")
        await tab.shows("Listening")
        await tab.page.get_by_role("button", name="Publish").click()
        dialog = tab.page.get_by_role("dialog")
        await dialog.get_by_label("Topic").fill("task.created")
        await dialog.get_by_role("button", name="Publish").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("this token does not grant publish")
        await dialog.get_by_role("button", name="Cancel").click()
        await tab.page.get_by_role("button", name="Forget the token").click()
        await expect(tab.heading()).to_have_text("Show a token")


# ---------------------------------------------------------------- the shell


async def test_the_keyboard_is_enough(tab: Tab) -> None:
    await tab.open()
    await tab.shows("Published")
    await tab.page.keyboard.press("Tab")
    await expect(tab.page.get_by_role("link", name="Skip to the page")).to_be_focused()
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.locator("main")).to_be_focused()
    await tab.page.get_by_role("link", name="Subscriptions", exact=True).first.press("Enter")
    await expect(tab.heading()).to_be_focused()
    assert "Subscriptions" in await tab.page.title()
    button = tab.page.get_by_role("button", name="Pause…")
    await button.press("Enter")
    await expect(tab.page.get_by_role("dialog").get_by_label("What")).to_be_focused()
    await tab.page.keyboard.press("Escape")
    await expect(button).to_be_focused()
    tab.quiet()


async def test_light_and_dark_by_a_switch(tab: Tab) -> None:
    await tab.open()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = await tab.page.evaluate(ground)
    await tab.page.get_by_role("button", name="Dark").click()
    dark = await tab.page.evaluate(ground)
    assert dark != light
    await tab.page.reload()
    await expect(tab.page.get_by_role("button", name="Light")).to_be_visible()
    assert await tab.page.evaluate(ground) == dark


async def test_all_pages_are_within_reach_on_a_phone(tab: Tab) -> None:
    await tab.page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a TypedDict
    await tab.open()
    bar = tab.page.get_by_role("navigation", name="Pages")
    await expect(bar.get_by_role("link", name="Schemas")).to_be_hidden()
    await bar.get_by_role("button", name="More").click()
    for name in ("Subscriptions", "Conversations", "Replays", "Schemas", "Routers"):
        await expect(bar.get_by_role("link", name=name)).to_be_visible()
    assert await tab.violations() == []


async def test_a_hidden_tab_asks_nothing_and_goes_on_where_it_was(tab: Tab, api: httpx.AsyncClient) -> None:
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await tab.open("#/events?pattern=hide.*")
    await tab.shows("Listening")
    await api.post("/events", json={"topic": "hide.first"})
    await tab.shows("hide.first")
    await tab.page.evaluate(hide, True)
    await tab.page.wait_for_timeout(500)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    await api.post("/events", json=[{"topic": "hide.second"}, {"topic": "hide.third"}])
    await tab.page.wait_for_timeout(1500)
    assert await tab.page.get_by_text("hide.second").count() == 0
    assert asked == []
    await tab.page.evaluate(hide, False)
    await tab.shows("hide.third")
    await expect(tab.page.locator("tbody tr")).to_have_count(3)
    await tab.reach("Subscriptions")
    await tab.shows("billing")
    await tab.page.evaluate(hide, True)
    await tab.page.wait_for_timeout(500)
    asked.clear()
    await tab.page.wait_for_timeout(2500)
    assert asked == []
    tab.quiet()


async def test_a_service_that_is_away_for_a_while(tab: Tab) -> None:
    await tab.open()
    await tab.shows("Published")
    await tab.reach("Events")
    await tab.shows("Listening")
    await tab.page.context.set_offline(True)
    await tab.page.get_by_role("link", name="Overview", exact=True).first.click()
    await expect(tab.page.get_by_role("alert").first).to_contain_text("The service does not answer")
    await tab.page.context.set_offline(False)
    await tab.page.get_by_role("button", name="Try again").first.click()
    await tab.shows("Published")

"""One tab of a browser, and what is wrong with what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.async_api import ConsoleMessage, Locator, Page, Request, expect

PICTURES = Path(__file__).parents[2] / "docs" / "pages"
PAGE = PICTURES.with_suffix(".md")
PHONE = {"width": 360, "height": 740}
SCREEN = {"width": 1280, "height": 860}
SERIOUS = frozenset({"serious", "critical"})


class Tab:
    """A page, what its console said, and what it asked of others than the service."""

    def __init__(self, page: Page, url: str, *, screenshots: bool) -> None:
        self.page = page
        self.url = url
        self.said: list[str] = []
        self.elsewhere: list[str] = []
        self._screenshots = screenshots
        page.set_default_timeout(10_000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", self._request)

    async def open(self, fragment: str = "") -> None:
        """The pages, from the beginning."""
        await self.page.goto(f"{self.url}/{fragment}", wait_until="load")

    async def reach(self, link: str) -> None:
        """A page by its link in the bar."""
        await self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=link, exact=True).click()
        await expect(self.page.get_by_role("heading", level=1)).to_be_visible()

    def heading(self) -> Locator:
        return self.page.get_by_role("heading", level=1)

    async def shows(self, text: str) -> None:
        """Somewhere on the page, as soon as it is known."""
        await expect(self.page.locator("main").get_by_text(text).first).to_be_visible()

    async def settle(self, seconds: float) -> None:
        """Before a picture of something that takes its time, such as a chart that has a line."""
        if self._screenshots:
            await self.page.wait_for_timeout(1000 * seconds)

    async def check(self, name: str | None = None) -> None:
        """AssertionError for what is wrong with what is shown now; `name` is of its pictures.

        In light and on a phone by all of axe's rules; in dark only the contrast is another one.
        """
        for theme in ("light", "dark"):
            await self.page.emulate_media(color_scheme=theme)
            await self.picture(name and f"{name}-{theme}")
            assert await self.page.evaluate(CUT) == []
            assert await self.violations(None if theme == "light" else ["color-contrast"]) == [], theme
        await self.page.emulate_media(color_scheme="light")
        await self.page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a TypedDict
        await self.picture(name and f"{name}-phone")
        width = await self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{width} px wide on a phone: {await self.page.evaluate(WIDEST)}"
        assert await self.page.evaluate(CUT) == [], "on a phone"
        assert await self.violations() == [], "on a phone"
        await self.page.set_viewport_size(SCREEN)  # type: ignore[arg-type]  # as above
        self.quiet()

    def quiet(self) -> None:
        """AssertionError for what the console said, and for what was asked of others."""
        assert self.said == []
        assert self.elsewhere == []

    async def violations(self, rules: list[str] | None = None) -> list[str]:
        """What axe finds that keeps somebody from using the page: which rule, and where. By all rules, or by these."""
        options = {"resultTypes": ["violations"], **({} if rules is None else {"runOnly": rules})}
        found: list[dict[str, Any]] = (await Axe().run(self.page, options=options)).response["violations"]
        return [
            f"{each['id']}: {[node['html'][:200] + str(node.get('any', [{}])[:1]) for node in each['nodes'][:3]]}"
            for each in found
            if each["impact"] in SERIOUS
        ]

    async def picture(self, name: str | None) -> None:
        """What is seen now, if pictures are wanted and docs/pages.md shows this one."""
        if name and self._screenshots and f"(pages/{name}.png)" in PAGE.read_text():
            await self.page.wait_for_timeout(300)
            picture = await self.page.screenshot(animations="disabled")
            PICTURES.mkdir(exist_ok=True)
            PICTURES.joinpath(f"{name}.png").write_bytes(picture)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.said.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:")):
            self.elsewhere.append(request.url)


WIDEST = """() => [...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1).slice(0, 5)
  .map((each) => `${each.tagName}.${each.className} ${each.getBoundingClientRect().right}`)"""
"""What reaches beyond the right edge."""
CUT = """() => [...document.querySelectorAll(".card")]
  .filter((each) => each.scrollWidth > each.clientWidth + 1)
  .map((each) => `${each.scrollWidth} > ${each.clientWidth}: ${each.textContent.slice(0, 80)}`)"""
"""Cards whose content is wider than they are: what is beyond their edge nobody sees."""

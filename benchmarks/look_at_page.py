"""Look at a page as people will: in headless Chromium, wide and narrow, light and dark.

    python benchmarks/look_at_page.py DIR/report.html pictures/

writes a picture of each, and lists what is wrong: messages of the console, requests to anywhere,
content wider than the screen, and what axe-core finds (https://github.com/dequelabs/axe-core).
Needs `pip install playwright axe-playwright-python` and a Chromium: the system's, or one that
`playwright install chromium` fetched.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = ("light", "dark")
_SERIOUS = ("serious", "critical")
_SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Look:
    """What one look at a page found.

    Attributes:
        complaints: console messages, page errors and requests, one line each.
        overflow_px: by how much the content is wider than the window.
        violations: axe's findings: rule, impact, and the elements.
        incomplete: rules that axe could not decide by itself.
    """

    complaints: tuple[str, ...]
    overflow_px: int
    violations: tuple[str, ...]
    incomplete: tuple[str, ...]

    @property
    def serious(self) -> list[str]:
        """Violations that keep somebody from using the page."""
        return [line for line in self.violations if line.startswith(_SERIOUS)]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium: the system's where there is one, else playwright's own."""
    from playwright.sync_api import sync_playwright

    system = next((found for name in _SYSTEM_NAMES if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def look(
    browser: Browser, path: Path, width: int, scheme: Any, picture: Path | None = None
) -> Look:
    """Open a page, take its picture, and return what is wrong with it.

    Args:
        width: of the window in CSS pixels.
        scheme: "light" or "dark".
    """
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    try:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        address = path.resolve().as_uri()
        page.on(
            "request",
            lambda request: (
                None
                if request.url == address or request.url.startswith("data:")
                else complaints.append(f"request: {request.url}")
            ),
        )
        page.goto(address)
        if picture is not None:
            page.screenshot(path=picture, full_page=True)
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        violations, incomplete = _axe(page)
        return Look(tuple(complaints), int(overflow), violations, incomplete)
    finally:
        page.close()


def _axe(page: Page) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Run axe-core with every <details> open, so that nothing hides from it."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    found = Axe().run(page).response
    violations = tuple(
        f"{entry['impact']}: {entry['id']} at "
        + ", ".join(str(node["target"]) for node in entry["nodes"][:5])
        for entry in found["violations"]
    )
    return violations, tuple(str(entry["id"]) for entry in found["incomplete"])


def main(arguments: list[str]) -> int:
    """Take the pictures; 1 where anything is wrong."""
    path, folder = Path(arguments[0]), Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    wrong = False
    with chromium() as browser:
        for name, width in WIDTHS.items():
            for scheme in SCHEMES:
                found = look(browser, path, width, scheme, folder / f"{name}-{scheme}.png")
                print(f"{name} {scheme}: {found}")
                wrong |= bool(found.complaints or found.overflow_px > 0 or found.serious)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The page in a real browser, where one is there: nothing breaks, nothing is cut off, axe-core."""

from __future__ import annotations

from pathlib import Path

import pytest
from html_runs import write_run

from benchmarks.look_at_page import SCHEMES, WIDTHS, chromium, look
from compress_export.html_report import write_comparison, write_html_report

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")


def test_pages_are_sound_wide_and_narrow_light_and_dark(tmp_path: Path) -> None:
    from playwright.sync_api import Error

    run = write_run(tmp_path / "run")
    pages = [write_html_report(run), write_comparison([run, run], tmp_path / "both.html")]
    try:
        with chromium() as browser:
            found = {
                (page.name, width, scheme): look(browser, page, width, scheme)
                for page in pages
                for width, scheme in zip(WIDTHS.values(), SCHEMES, strict=True)
            }
    except Error as error:
        if "Executable doesn't exist" in str(error):
            pytest.skip("no Chromium on this machine")
        raise
    for seen in found.values():
        assert seen.complaints == ()
        assert seen.overflow_px <= 0
        assert seen.serious == []

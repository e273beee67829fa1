"""docs/deploy.md has the tables of the committed result, and no transfer left a mixture."""

from __future__ import annotations

import json

from benchmarks.deploy.page import PAGE, RESULT, parts
from benchmarks.pruning.page.markdown import fill

FOUND = json.loads(RESULT.read_text(encoding="utf-8"))


def test_page_follows_the_result():
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, parts(FOUND)) == page


def test_figures_came_home():
    assert all(row["code"] == 0 for row in FOUND["speed"]["rows"])
    assert {file["measured_on"] for file in FOUND["speed"]["in_report_json"]} == {"board"}
    assert FOUND["speed"]["in_report_html"]


def test_every_cut_left_one_whole_version():
    *cuts, last = FOUND["cuts"]["rows"]
    assert len(cuts) >= 20
    assert {row["device_has"] for row in cuts} <= {"old", "new"}
    assert len({row["killed"] for row in cuts}) >= 4
    assert (last["device_has"], last["leftovers"]) == ("new", 0)
    assert all(row["code"] in (2, 3, 4) for row in FOUND["failures"])

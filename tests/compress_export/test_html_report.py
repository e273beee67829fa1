"""report.html: self-contained, safe with any name, and true to the report's figures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from html_runs import DIGITS, check, plain_report, write_evidence, write_run
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from compress_export.cli import main
from compress_export.evidence import MOST_CHANGED, changed_images
from compress_export.html_report import redraw, write_comparison, write_html_report
from compress_export.html_report.answers import confusion
from compress_export.html_report.compare import run_names
from compress_export.html_report.tradeoff import Point, pareto
from compress_export.html_report.words import ms_text, points_text, ratio_text, size_text

STYLE = Path(__file__).parents[2] / "compress_export/html_report/templates/style.css"
HOSTILE = '</svg></style><script>alert("x")</script><img src=x onerror=alert(1)>'


class Parsed(HTMLParser):
    """What a browser would make of a page, as far as these tests ask."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def every(self, name: str) -> list[str]:
        """Values of an attribute, wherever it stands."""
        return [
            value or "" for _, found in self.tags for key, value in found.items() if key == name
        ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Parsed:
    return Parsed(write_html_report(run))


def test_page_asks_for_nothing_and_runs_nothing(run: Path, page: Parsed) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert all(source.startswith("data:image/") for source in page.every("src"))
    links = [*page.every("href"), *page.every("xlink:href")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    text = (run / "report.html").read_text()
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    (policy,) = [
        found["content"] for tag, found in page.tags if found.get("http-equiv") and tag == "meta"
    ]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_structure_serves_screen_readers(page: Parsed) -> None:
    ids = page.every("id")
    assert len(ids) == len(set(ids))
    wanted = {name for value in page.every("aria-labelledby") for name in value.split()}
    wanted |= {link[1:] for link in page.every("href") if link.startswith("#")}
    assert wanted <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("figure") == 10
    assert tags.count("details") == tags.count("figure") + 1
    pictures = [found for tag, found in page.tags if tag == "svg" and "aria-hidden" not in found]
    assert len(pictures) == 10
    assert all(found["role"] == "img" for found in pictures)
    assert all(found.get("alt") for tag, found in page.tags if tag == "img")
    labels = [found["aria-label"] for _, found in page.tags if found.get("role") == "region"]
    assert len(labels) == len(set(labels))


def test_page_tells_the_reports_figures(page: Parsed) -> None:
    for text in (
        "resnet20 for jetson",
        "2 of 6 checks passed; missed: accuracy drop; not verified on this machine: process memory",
        "1.00 MiB → 87.9 KiB",
        "12× smaller",
        "−5.00 points",
        "compress-export --board 'my board.yaml'",
        "few test images",
        "accuracy budget 94.00 %",
    ):
        assert text in page.text


def test_names_of_the_users_inject_no_markup(tmp_path: Path) -> None:
    report = plain_report()
    report |= dict.fromkeys(("model", "data", "board", "target"), HOSTILE)
    report |= {"warnings": [HOSTILE], "command": [HOSTILE], "options": {HOSTILE: HOSTILE}}
    report["checks"][0] |= {"note": HOSTILE, "file": HOSTILE}
    report["device_measurements"] = [
        {"device": HOSTILE, "host": {HOSTILE: HOSTILE}, "measurements": [{"name": HOSTILE}],
         "checks": [], "verdict": HOSTILE, "warnings": [HOSTILE]}
    ]  # fmt: skip
    folder = write_run(tmp_path / "run", (HOSTILE, "$5", "a & b", *DIGITS[3:]), **report)
    layers = [{"layer": HOSTILE, "channels": 16, "kept": 4}]
    (folder / "evidence" / "layers.json").write_text(json.dumps(layers))
    agents = json.loads((folder / "evidence" / "agents.json").read_text())
    agents[0]["groups"][0]["name"] = HOSTILE
    (folder / "evidence" / "agents.json").write_text(json.dumps(agents))
    write_comparison([folder, write_run(tmp_path / "plain")], tmp_path / "both.html")
    for path in (write_html_report(folder), tmp_path / "both.html"):
        found = Parsed(path)
        assert not [tag for tag, _ in found.tags if tag == "script"]
        assert not [name for _, given in found.tags for name in given if name.startswith("on")]
        assert all(source.startswith("data:image/") for source in found.every("src"))
        assert HOSTILE in found.text
    assert "$5" in Parsed(folder / "report.html").text


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({}, {"tradeoff"}),
        ({"artifacts": [], "checks": []}, set()),
        ({"board": "old", "metric": "mine:iou"}, {"tradeoff"}),
    ],
)
def test_parts_that_are_missing_are_left_out(
    tmp_path: Path, changes: dict[str, object], sections: set[str]
) -> None:
    report = plain_report() | changes
    for key in ("limits", "target", "timings_seconds", "environment"):
        del report[key]
    folder = write_run(tmp_path / "run", evidence=False)
    (folder / "report.json").write_text(json.dumps(report))
    found = set(Parsed(write_html_report(folder)).every("id"))
    assert found & {"tradeoff", "channels", "machine", "answers", "decisions"} == sections


def test_names_that_xml_cannot_hold_cost_no_page(tmp_path: Path) -> None:
    """A zero-width joiner, which is no character of a terminal's, stays."""
    control, joined = "a\x01b\x1b", "\u0645\u06cc\u200c\u062e"
    folder = write_run(tmp_path / "run", (control, joined, *DIGITS[2:]), model="m\x00")
    layers = [{"layer": "conv\uffff\x0b", "channels": 16, "kept": 4}]
    (folder / "evidence" / "layers.json").write_text(json.dumps(layers))
    text = write_html_report(folder).read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\uffff]", text)
    for name in ("a?b?", joined, "conv??", "m?"):
        assert name in text, name
    other = write_run(tmp_path / "tab\x02 \udce9")
    page = write_comparison([folder, other], tmp_path / "both.html").read_text(encoding="utf-8")
    assert "tab? ?" in page


def test_a_run_without_bench_has_no_accuracy(tmp_path: Path) -> None:
    report = plain_report()
    for entry in report["artifacts"]:
        entry |= {"top1": None, "agreement": None, "latency_ms": None, "peak_rss_bytes": None}
    for entry in report["stages"].values():
        entry["top1"] = None
    folder = write_run(tmp_path / "run", evidence=False, **report)
    found = Parsed(write_html_report(folder))
    assert "tradeoff" not in found.every("id")
    assert "87.9 KiB" in found.text


def test_many_classes_show_those_that_lost_most_on_a_page_of_decent_size(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(1000))
    folder = write_run(tmp_path / "run", classes, evidence=False)
    write_evidence(folder / "evidence", classes, side=224, operators=600)
    found = Parsed(write_html_report(folder))
    assert "losers" in {key.removesuffix("-title") for key in found.every("id")}
    assert "before-title" not in found.every("id")
    assert "class 0 lost most" in found.text
    assert (folder / "report.html").stat().st_size < 1_500_000


def test_device_measurements_stand_on_the_page(tmp_path: Path) -> None:
    device = {
        "device": "user@board:/srv", "measured_at": "2026-11-22T10:00:00Z", "verdict": "pass",
        "host": {"arch": "aarch64"}, "warnings": ["throttled"],
        "measurements": [{"name": "slim.int8.onnx", "latency_ms": {"p50": 3, "p90": 4}}],
        "checks": [],
    }  # fmt: skip
    found = Parsed(write_html_report(write_run(tmp_path / "run", device_measurements=[device])))
    for text in ("user@board:/srv", "2026-11-22T10:00:00Z", "4.00 ms", "aarch64", "throttled"):
        assert text in found.text


def test_a_page_that_fails_is_a_line_and_not_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    redraw(write_run(tmp_path / "run"), said.append)
    redraw(write_run(tmp_path / "broken", evidence=False, stages={}), said.append)
    assert (tmp_path / "run" / "report.html").is_file()
    assert said == ["report.html was not written, KeyError: 'baseline'"]


def test_the_arena_of_a_microcontroller_stands_on_the_page(tmp_path: Path) -> None:
    report = plain_report()
    arena = {"head_bytes": 1024, "tail_bytes": 2048, "total_bytes": 3072, "smallest_bytes": 3136}
    report["artifacts"][1]["arena"] = arena
    report["checks"].append(check("slim.int8.tflite", "flash_mib", 0.086, 0.5, "MiB"))
    found = Parsed(write_html_report(write_run(tmp_path / "run", evidence=False, **report)))
    assert "3.06 KiB" in found.text
    assert "budget 512 KiB" in found.text


def test_decisions_of_the_job_stand_on_the_page(tmp_path: Path) -> None:
    choice = {
        "path": "reference/slim.int8.onnx", "format": "onnx", "precision": "int8",
        "size_bytes": 1024, "latency_p50_ms": None, "latency_counts": False,
        "validation_score": 0.9, "missed": ["latency_p90_ms"], "shipped": True,
    }  # fmt: skip
    found = Parsed(write_html_report(write_run(tmp_path / "run", precision_choice=[choice])))
    assert "reference/slim.int8.onnx (ships)" in found.text
    assert "1.00 KiB" in found.text


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_of_text_and_pictures_have_contrast(scheme: int) -> None:
    """Also of text in pictures, where no checker in a browser can tell."""
    block = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))

    def contrast(one: str, other: str) -> float:
        low, high = sorted(luminance(colours[name]) for name in (one, other))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "muted", "first", "second", "good", "bad", "warn"):
        assert min(contrast(text, "card"), contrast(text, "page")) >= 4.5
    for soft in ("good-soft", "bad-soft", "warn-soft", "code"):
        assert contrast("ink", soft) >= 4.5
    assert contrast("grey", "card") >= 3


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_pareto_front_is_what_nobody_beats(pairs: Sequence[tuple[int, int]]) -> None:
    points = [Point(i, str(i), "onnx", cost, score, True) for i, (cost, score) in enumerate(pairs)]
    beaten = {
        (cost, score)
        for cost, score in pairs
        if any((c <= cost and s > score) or (c < cost and s >= score) for c, s in pairs)
    }
    assert [(p.cost, p.score) for p in pareto(points)] == sorted(set(pairs) - beaten)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=80))
def test_changed_images_are_changed_and_lost_ones_come_first(
    rows: Sequence[tuple[int, int, int]],
) -> None:
    labels, before, after = np.array(rows).T
    shown = changed_images(labels, before, after)
    changed = np.flatnonzero(before != after)
    assert set(shown) <= set(changed)
    assert len(shown) == len(set(shown)) == min(MOST_CHANGED, len(changed))
    lost = (before[shown] == labels[shown]).tolist()
    assert lost == sorted(lost, reverse=True)


def test_confusion_equals_scikit_learns() -> None:
    random = np.random.default_rng(1)
    labels, answers = random.integers(0, 5, (2, 200))
    assert (confusion(labels, answers, 5) == confusion_matrix(labels, answers)).all()


def test_figures_for_people() -> None:
    assert [size_text(n) for n in (None, 90, 90_000, 2**20, 3.2e8)] == [
        "–", "90 B", "87.9 KiB", "1.00 MiB", "305 MiB",
    ]  # fmt: skip
    assert [ms_text(ms) for ms in (0.0421, 0.2, 33.25)] == ["42.1 µs", "0.200 ms", "33.2 ms"]
    assert points_text(-0.3) == "−0.30 points"
    assert [ratio_text(100, n) for n in (None, 0, 50, 6)] == ["", "", "2.0×", "17×"]


def test_command_draws_one_run_and_compares_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_run(tmp_path / "a" / "out")
    two = write_run(tmp_path / "b" / "out", evidence=False)
    report = plain_report() | {"options": {"method": "taylor", "stages": ["prune", "quantize"]}}
    (two / "report.json").write_text(json.dumps(report))
    assert main(["report", str(one)]) == 0
    assert (one / "report.html").is_file()
    both = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--out", str(both)]) == 0
    found = Parsed(both)
    assert "a/out: slim.int8.onnx" in found.text
    assert "decore" in found.text and "taylor" in found.text
    assert "seed" not in found.text
    assert main(["report", str(one), str(two)]) == 2
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report", str(one), "--out", str(tmp_path)]) == 2
    assert "no report.json" in capsys.readouterr().err


def test_a_fleet_is_its_boards_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = tmp_path / "fleet"
    for board in ("small", "large"):
        write_run(fleet / board, evidence=False)
    listing = [{"board": board, "folder": board} for board in ("small", "large")]
    (fleet / "fleet.json").write_text(json.dumps({"fleet": listing}))
    assert main(["report", str(fleet)]) == 0
    found = Parsed(fleet / "report.html")
    assert "2 runs compared" in found.text
    assert all(f"{board}: slim.int8.onnx" in found.text for board in ("small", "large"))
    alone, out = write_run(tmp_path / "alone", evidence=False), tmp_path / "three.html"
    assert main(["report", str(fleet), str(alone), "--out", str(out)]) == 0
    assert "3 runs compared" in Parsed(out).text
    listing[0]["folder"] = "../alone"
    (fleet / "fleet.json").write_text(json.dumps({"fleet": listing}))
    assert main(["report", str(fleet)]) == 2
    assert "does not stay inside the folder" in capsys.readouterr().err


def test_many_runs_are_counted_and_the_front_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"run-{n}", evidence=False) for n in range(9)]
    for number, run in enumerate(runs):
        report = json.loads((run / "report.json").read_text())
        for entry in report["artifacts"]:
            entry["size_bytes"] += 1024 * (number != 4)
        (run / "report.json").write_text(json.dumps(report))
    write_comparison(runs, tmp_path / "many.html")
    text = Parsed(tmp_path / "many.html").text
    assert f"9 {report['verdict']}" in text
    summary = text[text.index("files against file size") :]
    summary = summary[: summary.index("Figures")]
    assert "Not beaten by any other: run-4:" in summary and "run-5" not in summary


def test_a_report_of_another_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", evidence=False, schema_version=2)
    assert main(["report", str(folder)]) == 2
    assert "schema_version 2, this program reads 1" in capsys.readouterr().err
    shutil.copy(__file__, folder / "report.json")
    assert main(["report", str(folder)]) == 2


def test_runs_are_named_apart(tmp_path: Path) -> None:
    assert run_names([tmp_path / "a" / "out", tmp_path / "b" / "out"]) == ["a/out", "b/out"]
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]

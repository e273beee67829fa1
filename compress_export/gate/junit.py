"""JUnit XML: a suite for each board, a case for each of its files and budgets.

In the stricter form, that of Ant's junitreport: every suite has all counts, a timestamp without a
zone, a host and both outputs, so that readers of the looser forms take it too.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from compress_export.gate.judged import Case
from compress_export.gate.lines import case_line
from compress_export.table import check_line
from compressor.whole_files import whole_file

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(
    path: Path,
    cases: Sequence[Case],
    *,
    seconds: Mapping[str, float],
    require_measured: bool,
    now: datetime | None = None,
) -> None:
    """Write the cases.

    Args:
        seconds: board -> that making and measuring its files took, the time of its suite.
        require_measured: an unverified case is a failure; otherwise it counts as skipped.
        now: the suites' timestamp, in UTC.
    """
    stamp = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    root = ET.Element("testsuites")
    for index, board in enumerate(dict.fromkeys(case.board for case in cases)):
        own = [case for case in cases if case.board == board]
        found = [_case(case, require_measured) for case in own]
        total = max(seconds.get(board, 0.0), sum(case.seconds for case in own))
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_text(board),
            package="compress-export",
            id=str(index),
            timestamp=stamp,
            hostname=_text(platform.node()) or "localhost",
            tests=str(len(found)),
            failures=str(sum(element.find("failure") is not None for element in found)),
            errors="0",
            skipped=str(sum(element.find("skipped") is not None for element in found)),
            time=f"{total:.3f}",
        )
        ET.SubElement(suite, "properties")
        suite.extend(found)
        ET.SubElement(suite, "system-out").text = _text("\n".join(map(case_line, own)))
        ET.SubElement(suite, "system-err")
    ET.indent(root)
    with whole_file(path) as unfinished:
        ET.ElementTree(root).write(unfinished, encoding="utf-8", xml_declaration=True)


def _case(case: Case, require_measured: bool) -> ET.Element:
    check = case.check
    element = ET.Element(
        "testcase",
        name=check.budget,
        classname=_text(f"{case.board}.{check.file or 'job'}"),
        time=f"{case.seconds:.3f}",
    )
    line = _text(check_line(check.to_json()))
    if check.status == "fail" or (check.status == "unverified" and require_measured):
        ET.SubElement(element, "failure", message=line, type=check.status).text = line
    elif check.status == "unverified":
        ET.SubElement(element, "skipped", message=line)
    return element


def _text(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)

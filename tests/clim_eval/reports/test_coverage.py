import json

import pytest
from clim_data import BrokenSample
from clim_eval.reports.coverage import (
    Coverage,
    check_scored,
    coverage_as_json,
    coverage_from_json,
    coverage_page,
)
from clim_eval.reports.report import read_report, write_report

FAULTS = [BrokenSample("unreadable image", f"{name}/1.png", "cut off") for name in "bcdefgh"]


def test_all_parts_add_up():
    coverage = Coverage("images", 1, Coverage.of("images", 1, FAULTS).left_out, {"too small": 2})
    assert (coverage.asked, coverage.scored, coverage.missing) == (10, 1, 9)
    assert coverage.sentence() == (
        "scored 1 of 10 images, left out 9: unreadable image 7, too small 2"
    )
    assert coverage.lines(2)[1] == (
        "  skipped 7, unreadable image: b/1.png (cut off); c/1.png (cut off); and 5 more"
    )


def test_full_coverage_is_one_sentence():
    coverage = Coverage.of("images", 6, [])
    assert coverage.lines() == ["scored 6 of 6 images"]
    assert coverage.of_part("retrieval").sentence() == "scored 6 of 6 retrieval: images"


def test_nothing_scored_is_a_mistake_with_the_fix():
    with pytest.raises(ValueError, match=r"scored 0 of 7 images.*unreadable image.*: pass others$"):
        check_scored([Coverage.of("images", 0, FAULTS)], "pass others")
    check_scored([Coverage.of("images", 1, FAULTS), Coverage.of("regions", 3, [])], "pass others")


def test_a_report_holds_all_names_and_a_page_the_first(tmp_path):
    many = [BrokenSample("unreadable image", f"a`{i}.png") for i in range(30)]
    coverage = [Coverage.of("images", 2, many), Coverage.of("regions", 5, [])]
    write_report(tmp_path, title="t", metrics={"top1": 1.0}, config={}, coverage=coverage)

    report = read_report(tmp_path)
    assert report["coverage"] == json.loads(json.dumps(coverage_as_json(coverage)))
    assert len(report["coverage"]["images"]["names"]["unreadable image"]) == 30
    page = (tmp_path / "report.md").read_text()
    assert "Scored 2 of 32 images, left out 30: unreadable image 30." in page
    assert "`a'0.png`" in page
    assert "and 10 more (see report.json)" in page
    assert "Scored 5 of 5 regions." in page
    assert coverage_page({}) == []


def test_coverage_is_read_back_from_a_report():
    coverage = [Coverage.of("images", 2, FAULTS), Coverage("regions", 5, by_rule={"too small": 3})]
    stored = json.loads(json.dumps(coverage_as_json(coverage)))
    assert coverage_as_json(coverage_from_json(stored)) == stored

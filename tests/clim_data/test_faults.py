"""What is left out is counted once for every fault, and named."""

import pickle

from clim_data import BrokenSample, SkipReport


def test_every_fault_of_one_name_counts():
    report = SkipReport()
    report.add(BrokenSample("bad box", "b.json, annotation 3", "width -3"))
    report.add(BrokenSample("unknown category", "b.json, annotation 3", "9"))
    report.add(BrokenSample("bad box", "b.json, annotation 4"))

    assert report.total == 3
    assert report.counts == {"bad box": 2, "unknown category": 1}
    assert report.names["unknown category"] == ["b.json, annotation 3"]


def test_a_fault_met_again_counts_once():
    # An error message may hold an address, which differs in every epoch.
    faults = [BrokenSample("unreadable image", "a.jpg", f"object at {i:#x}") for i in range(3)]
    assert SkipReport(faults).counts == {"unreadable image": 1}


def test_reports_of_several_processes_join():
    first = SkipReport([BrokenSample("bad box", "a", "d")])
    second = SkipReport([BrokenSample("bad box", "a", "d"), BrokenSample("bad box", "b")])
    first.extend(pickle.loads(pickle.dumps(second.faults)))

    assert first == second
    assert first.entries == {"a": ("bad box", "d"), "b": ("bad box", "")}
    assert pickle.loads(pickle.dumps(first)) == first


def test_a_summary_names_the_first_of_each_reason():
    report = SkipReport(BrokenSample("bad box", f"n{i}", "width 0") for i in range(12))
    report.add(BrokenSample("unreadable image", "n0"))

    bad, unreadable = report.summary(2).splitlines()
    assert bad == "skipped 12, bad box: n0 (width 0); n1 (width 0); and 10 more"
    assert unreadable == "skipped 1, unreadable image: n0"
    assert report.to_dict()["total"] == 13
    assert SkipReport().summary() == "nothing skipped"

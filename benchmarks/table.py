"""Writes the tables of results into README.md from results/*.json, so that no figure is typed by
hand.

python benchmarks/table.py           rewrite the tables
python benchmarks/table.py --check   fail if a table is not what the files say
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by table.py -->", "<!-- end of results -->"
GPU_BEGIN, GPU_END = "<!-- GPU results: written by table.py -->", "<!-- end of GPU results -->"
HEAD = (
    "| benchmark | on | ours | other | times as fast (lowest to highest pair) | by CPU time | "
    "target "
    "| peak memory of the call, MiB | target |"
)


def table(results: Path) -> str:
    """Markdown of all result files of a folder: one row for each comparison, and what they were
    measured on."""
    files = sorted(path for path in results.glob("*.json") if not path.name.startswith("gpu-"))
    if not files:
        return "Nothing has been measured yet: `hatch run bench:all` does."
    records = [json.loads(path.read_text()) for path in files]
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    lines += [row(record, measured) for record in records for measured in record["comparisons"]]
    notes = [f"- `{r['benchmark']}`: {note}" for r in records for note in r.get("notes", [])]
    if notes:
        lines += ["", *notes]
    lines += ["", "Measured on:", ""]
    machines = dict.fromkeys(describe(record["machine"]) for record in records)
    for machine in machines:
        names = [f"`{r['benchmark']}`" for r in records if describe(r["machine"]) == machine]
        lines.append(f"- {', '.join(names)}: {machine}")
    return "\n".join(lines)


def row(record: dict, measured: dict) -> str:
    """One comparison as a row of the table."""
    ours, other = measured["ours"], measured["other"]
    ratio = (
        f"**{measured['ratio']:.2f}** ({measured['ratio_low']:.2f} to {measured['ratio_high']:.2f})"
    )
    memory, memory_target = "", ""
    if ours["call_mib"] is not None:
        memory = f"{ours['call_mib']:.0f} / {other['call_mib']:.0f}"
    if measured["memory_target"] is not None:
        if measured["memory_ratio"] is not None:
            memory += f" = **{measured['memory_ratio']:.2f}**"
            memory += f" (whole process {ours['process_mib']:.0f} / {other['process_mib']:.0f})"
        memory_target = f"at most {measured['memory_target']:.2f}"
    cells = [
        f"`{record['benchmark']}`: {measured['name']}",
        measured["sizes"],
        side(ours),
        side(other),
        ratio,
        f"{measured['cpu_ratio']:.2f}",
        "" if measured["target"] is None else f"{measured['target']:g}",
        memory,
        memory_target,
    ]
    return "| " + " | ".join(cells) + " |"


def side(measured: dict) -> str:
    """Label, time of a call and items per second."""
    rate = f"{float(format(measured['items_per_s'], '.3g')):,g} {measured['item']}s/s"
    return f"{measured['label']}: {measured['median_s'] * 1000:.0f} ms, {rate}"


def describe(machine: dict) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    device = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    threads = f"{machine['threads']} thread" + ("s" if machine["threads"] != 1 else "")
    hardware = f"{device}{machine['processor']}, {machine['cores']} cores, {threads}"
    hardware += f", load average {machine['load_at_start']} when it began"
    return f"{hardware}; Python {machine['python']}, {packages}"


def gpu_table(results: Path) -> str:
    """Make Markdown of the newest run of `gpu.py` on each card: what was checked, what failed,
    every figure."""
    newest = {}
    for path in sorted(results.glob("gpu-*.json")):
        record = json.loads(path.read_text())
        card = record["machine"]["card"]
        if card not in newest or record["date"] >= newest[card]["date"]:
            newest[card] = record
    if not newest:
        return "No GPU has been measured yet."
    return "\n\n".join(gpu_section(record) for record in newest.values())


def gpu_section(record: dict) -> str:
    """Make the two tables of one card."""
    machine, parts = record["machine"], record["parts"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        f"**{machine['card']}**, {record['date']}: CUDA {machine['cuda']}, {machine['cores']} "
        f"cores; {packages}",
        "",
        "| part | checks that passed | failed | left out for want of time | complete | seconds |",
        "|---|---:|---|---:|---|---:|",
    ]
    for part in parts:
        missing = [check for check in part["checks"] if not check["passed"]]
        failed = [check["name"] for check in missing if not is_left_out(check)]
        left_out = len(missing) - len(failed)
        passed = len(part["checks"]) - len(missing)
        complete = "yes" if part["done"] and part["failure"] is None and not left_out else "no"
        cells = (
            part["part"],
            passed,
            "; ".join(failed),
            left_out or "",
            complete,
            "" if part["seconds"] is None else f"{part['seconds']:.0f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")

    figures = [(part["part"], figure) for part in parts for figure in part["figures"]]
    if figures:
        lines += [
            "",
            "| part | figure | value | share of the ceiling | |",
            "|---|---|---:|---:|---|",
        ]
    for name, figure in figures:
        share = "" if figure["share"] is None else f"{figure['share']:.0%}"
        value = f"{figure['value']:.4g} {figure['unit']}"
        lines.append(f"| {name} | {figure['name']} | {value} | {share} | {figure['detail']} |")
    return "\n".join(lines)


def is_left_out(check: dict) -> bool:
    """Whether a line was not tried because the time of its part was used up."""
    return "no time" in check["name"] or check["detail"] == "left out: no time"


def insert(text: str, new: str, begin: str = BEGIN, end: str = END) -> str:
    """Replace what stands between the two marks of `text`. Raises ValueError without marks."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(
            f"the page has no lines {begin!r} and {end!r}: add them where the table belongs"
        )
    return f"{before}{begin}\n\n{new}\n\n{end}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if the table is old"
    )
    args = parser.parse_args(argv)
    old = args.page.read_text()
    new = insert(old, table(args.results))
    new = insert(new, gpu_table(args.results), GPU_BEGIN, GPU_END)
    if args.check:
        return int(new != old)
    args.page.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())

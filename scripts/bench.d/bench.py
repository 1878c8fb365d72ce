"""Measures the gateway beside other proxies: rounds are interleaved, medians and ratios count."""

import argparse
import json
import os
import pathlib
import re
import sys
import tempfile
import traceback

import parts
import servers

# What a column shows: its heading, and how a number is written.
COLUMNS = {
    "requests_per_s": ("requests/s", "{:.0f}"), "p50_us": ("p50 µs", "{:.0f}"), "p99_us": ("p99 µs", "{:.0f}"),
    "cpu_us_per_request": ("CPU µs/request", "{:.1f}"), "cpu_by_nginx": ("CPU ÷ nginx", "{:.2f}"),
    "cpu_by_first": ("÷ first row", "{:.2f}"), "rate_by_nginx": ("requests/s ÷ nginx", "{:.2f}"),
    "p99_by_nginx": ("p99 ÷ nginx", "{:.2f}"), "busy": ("core busy", "{:.2f}"), "start_ms": ("start ms", "{:.0f}"),
    "connections": ("connections", "{:.0f}"), "before_mib": ("RSS before, MiB", "{:.1f}"), "rss_mib": ("RSS MiB", "{:.1f}"),
    "kib_each": ("KiB each", "{:.1f}"), "bad": ("bad", "{:.0f}"),
}


def table(part):
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in part["rows"].values())]
    lines = [f"### {part['title']}", "", "| | " + " | ".join(COLUMNS[key][0] for key in keys) + " |",
             "|---|" + "--:|" * len(keys)]
    for name, row in part["rows"].items():
        cells = (COLUMNS[key][1].format(row[key]) if row.get(key) is not None else "–" for key in keys)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if "note" in part:
        lines += ["", part["note"]]
    return lines + [""]


def markdown(result):
    goals = [goal for part in result["parts"].values() for goal in part["goals"]]
    lines = [f"Measured {result['date']} on {result['machine']}; medians of interleaved rounds.", ""]
    if goals:
        lines += ["| goal | measured | at most | met |", "|---|--:|--:|---|"]
        lines += [f"| {g['goal']} | {g['measured']:.2f} | {g['limit']:g} | {'yes' if g['met'] else 'no'} |" for g in goals]
        lines.append("")
    for part in result["parts"].values():
        lines += table(part)
    return "\n".join(lines)


def document(text):
    page = servers.ROOT / "docs/performance.md"
    before, begin, rest = page.read_text().partition("<!-- measured:")
    note, _, rest = rest.partition("-->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not end:
        sys.exit(f"{page} has no place for the tables")
    page.write_text(f"{before}{begin}{note}-->\n{text}\n{end}{after}")


def machine():
    model = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{len(servers.CORES)} cores, {model.group(1) if model else 'unknown processor'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxies", default=",".join(servers.PROXIES), help="of %(default)s")
    parser.add_argument("--only", default=",".join(parts.PARTS), metavar="NAME,...", help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("BENCH_ROUNDS", "5")))
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("BENCH_SECONDS", "2")))
    parser.add_argument("--document", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--million", action="store_true", help="also with 1,000,000 connections in the store")
    options = parser.parse_args()
    only, names = options.only.split(","), options.proxies.split(",")
    for unknown in (set(only) - set(parts.PARTS)) | (set(names) - set(servers.PROXIES)):
        parser.error(f"there is no {unknown}")

    result = {"machine": machine(), "date": servers.today(), "rounds": options.rounds, "seconds": options.seconds,
              "parts": {}}
    failed = []
    with tempfile.TemporaryDirectory(prefix="claviger-bench-") as folder:
        run = parts.Run(folder, names, options)
        try:
            for name in [name for name in parts.PARTS if name in only]:
                try:
                    result["parts"][name] = parts.PARTS[name](run)
                except (Exception, SystemExit):
                    # One part less is better than none at all, but it is told.
                    failed.append(name)
                    traceback.print_exc()
                    run.tell()
        finally:
            run.stop()

    text = markdown(result)
    target = servers.ROOT / "target/bench"
    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(json.dumps(result, indent=2))
    (target / "result.md").write_text(text)
    if options.document and not failed:
        document(text)
    print(text)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()

"""Interleaved rounds of wrk against each proxy; medians, and ratios against nginx."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import servers

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
CONNECTIONS = {"1k": 32, "64k": 16}
START_LIMIT_MS, IDLE_LIMIT_MIB = 200, 30


def microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * UNITS[unit]


def measure(proxy, body, seconds):
    """One run of wrk: what it saw, and what the proxy spent on it."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS[body]}", f"-d{seconds}s", "--latency",
               "-H", f"Authorization: {servers.CREDENTIAL}", proxy.url(body)]
    cpu, begun = proxy.cpu_seconds(), time.monotonic()
    run = subprocess.run(servers.pinned(command, servers.LOAD_CORE), capture_output=True, text=True, timeout=seconds + 30)
    wall, cpu = time.monotonic() - begun, proxy.cpu_seconds() - cpu
    text = run.stdout
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    bad = sum(int(n) for n in re.findall(r"(?:Non-2xx or 3xx responses:|connect|read|write|timeout) (\d+)", text))
    if not requests:
        raise SystemExit(f"{proxy.name} served nothing:\n{text}{run.stderr}")
    return {
        "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "p50_us": microseconds(re.search(r"^\s+50%\s+(\S+)", text, re.M).group(1)),
        "p99_us": microseconds(re.search(r"^\s+99%\s+(\S+)", text, re.M).group(1)),
        "cpu_us_per_request": cpu * 1e6 / requests,
        "busy": cpu / wall,
        "rss_mib": proxy.resident_mib(),
        "bad": bad,
    }


def check(proxy):
    """It proxies with the credential, and without it does not."""
    for body, size in servers.BODIES.items():
        servers.wait_for(proxy.url(body), wanted=(401,))
        status, got = servers.fetch(proxy.url(body), headers={"Authorization": servers.CREDENTIAL})
        if (status, len(got)) != (200, size):
            raise SystemExit(f"{proxy.name} answered {status} with {len(got)} bytes for {body}: {got[:300]!r}")


def compare(proxies, rounds, seconds):
    """Medians by body and proxy. Rounds are interleaved, so that a busy minute hits all alike."""
    runs = {body: {proxy.name: [] for proxy in proxies} for body in servers.BODIES}
    for proxy in proxies:
        for body in servers.BODIES:
            measure(proxy, body, 1)
    for number in range(rounds):
        for body in servers.BODIES:
            # Another goes first each time.
            for proxy in proxies[number % len(proxies):] + proxies[:number % len(proxies)]:
                runs[body][proxy.name].append(measure(proxy, body, seconds))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        body: {
            name: {key: statistics.median(run[key] for run in of_proxy) for key in of_proxy[0]}
            for name, of_proxy in by_name.items()
        }
        for body, by_name in runs.items()
    }


def start_up(folder, times=7):
    """Milliseconds from spawn to ready with ten profiles, and MiB resident when idle."""
    spans, resident = [], []
    for number in range(times):
        gateway = servers.Gateway(folder, f"start-{number}", profiles=10)
        begun = time.monotonic()
        gateway.run()
        try:
            servers.wait_for(f"{gateway.admin}/readyz", pause=0.001)
            spans.append((time.monotonic() - begun) * 1e3)
            time.sleep(0.5)
            resident.append(gateway.resident_mib())
        finally:
            gateway.stop()
    return {"start_ms": statistics.median(spans), "idle_rss_mib": statistics.median(resident)}


def markdown(result):
    lines = []
    for body, by_name in result["bodies"].items():
        lines += [
            f"### {body} bodies: wrk -t1 -c{CONNECTIONS[body]}, medians of {result['rounds']} interleaved rounds of {result['seconds']} s",
            "| proxy | requests/s | p50 µs | p99 µs | CPU µs/request | RSS MiB | CPU ÷ nginx | requests/s ÷ nginx | core busy | bad |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        base = by_name.get("nginx")
        for name, m in by_name.items():
            ratios = ("–", "–")
            if base:
                ratios = (f"{m['cpu_us_per_request'] / base['cpu_us_per_request']:.2f}",
                          f"{m['requests_per_s'] / base['requests_per_s']:.2f}")
            lines.append(
                f"| {name} | {m['requests_per_s']:.0f} | {m['p50_us']:.0f} | {m['p99_us']:.0f} | {m['cpu_us_per_request']:.1f} "
                f"| {m['rss_mib']:.1f} | {ratios[0]} | {ratios[1]} | {m['busy']:.2f} | {m['bad']:.0f} |")
        lines.append("")
    if "start" in result:
        start = result["start"]
        lines += [
            "| start-up with 10 profiles | idle RSS |", "|--:|--:|",
            f"| {start['start_ms']:.0f} ms (limit {START_LIMIT_MS}) | {start['idle_rss_mib']:.1f} MiB (limit {IDLE_LIMIT_MIB}) |", "",
        ]
    lines.append(f"{result['machine']}. Each proxy has one worker on a core of its own, checks HTTP Basic and injects "
                 f"a token of {len(servers.TOKEN)} bytes; wrk and the upstream (nginx) share another core.")
    return "\n".join(lines)


def machine():
    model = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{len(servers.CORES)} cores, {model.group(1) if model else 'unknown processor'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxies", default=",".join(servers.PROXIES))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("BENCH_ROUNDS", "5")))
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("BENCH_SECONDS", "4")))
    options = parser.parse_args()
    names = options.proxies.split(",")

    result = {"machine": machine(), "rounds": options.rounds, "seconds": options.seconds}
    started = []
    with tempfile.TemporaryDirectory(prefix="claviger-bench-") as folder:
        try:
            if "claviger" in names:
                result["start"] = start_up(folder)
            started.append(servers.start_upstream(folder))
            for name in names:
                started.append(servers.PROXIES[name](folder, started[0]))
                check(started[-1])
            result["bodies"] = compare(started[1:], options.rounds, options.seconds)
        except BaseException:
            for server in started:
                print(f"--- log of {server.name}\n{(server.folder / 'log').read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            for server in started:
                server.stop()

    table = markdown(result)
    target = servers.ROOT / "target/bench"
    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(json.dumps(result, indent=2))
    (target / "result.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()

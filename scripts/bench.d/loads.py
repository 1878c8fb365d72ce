"""The loads: what each tool saw, as numbers."""

import json
import pathlib
import re
import subprocess
import time

import servers

FOLDER = pathlib.Path(__file__).parent
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * UNITS[unit]


def run(command, seconds, core):
    return subprocess.run(servers.pinned(command, core), capture_output=True, text=True, timeout=seconds + 60)


def watched(proxy, load):
    """What `load` saw, and what the proxy spent meanwhile."""
    cpu, begun = proxy.cpu_seconds(), time.monotonic()
    seen, requests = load()
    wall, cpu = time.monotonic() - begun, proxy.cpu_seconds() - cpu
    if not requests:
        raise SystemExit(f"{proxy.name} served nothing")
    return seen | {"cpu_us_per_request": cpu * 1e6 / requests, "busy": cpu / wall, "rss_mib": proxy.resident_mib()}


def wrk(proxy, path, connections, seconds, script=None, arguments=(), credential=True, core=servers.LOAD_CORE):
    """As many requests as the proxy takes."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    if credential:
        command += ["-H", f"Authorization: {servers.CREDENTIAL}"]
    if script:
        command += ["-s", FOLDER / f"{script}.lua"]
    command += [proxy.url(path), "--", *map(str, arguments)]

    def load():
        done = run(command, seconds, core)
        text = done.stdout
        try:
            requests = int(re.search(r"(\d+) requests in", text).group(1))
            bad = re.findall(r"(?:Non-2xx or 3xx responses:|connect|read|write|timeout) (\d+)", text)
            return {
                "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
                "p50_us": microseconds(re.search(r"^\s+50%\s+(\S+)", text, re.M).group(1)),
                "p99_us": microseconds(re.search(r"^\s+99%\s+(\S+)", text, re.M).group(1)),
                "requests": requests,
                "bad": sum(map(int, bad)),
            }, requests
        except AttributeError:
            raise SystemExit(f"wrk on {proxy.name}: {text}{done.stderr}") from None

    return watched(proxy, load)


def constant_rate(proxy, path, rate, connections, seconds):
    """`rate` requests a second, each latency counted from when its request was due."""
    command = [servers.HELPER, "load", "--address", f"127.0.0.1:{proxy.port}", "--path", f"/api/{path}",
               "--credential", servers.CREDENTIAL, "--rate", str(rate), "--connections", str(connections),
               "--seconds", str(seconds)]

    def load():
        done = run(command, seconds, servers.LOAD_CORE)
        if done.returncode:
            raise SystemExit(f"constant rate on {proxy.name}: {done.stderr}")
        seen = json.loads(done.stdout)
        return seen, seen["requests"]

    return watched(proxy, load)


def h2load(proxy, path, connections, streams, seconds):
    """HTTP/2 without TLS and without an upgrade."""
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=1",
               "-H", f"authorization: {servers.CREDENTIAL}", proxy.url(path, proxy.h2_port)]

    def load():
        done = run(command, seconds, servers.LOAD_CORE)
        rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
        counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", done.stdout)
        good = re.search(r"status codes: (\d+) 2xx", done.stdout)
        if not (rate and counts and good) or int(good.group(1)) == 0:
            raise SystemExit(f"h2load on {proxy.name}: {done.stdout}{done.stderr}")
        rate = float(rate.group(1))
        return {"requests_per_s": rate, "bad": int(counts.group(1)) - int(good.group(1))}, rate * (seconds + 1)

    return watched(proxy, load)

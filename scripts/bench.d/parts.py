"""What is measured, one function a part. Each gives a table: columns, rows of numbers, and goals."""

import socket
import statistics
import subprocess
import sys
import time

import loads
import servers

CACHED = 100_000  # Connections that the gateway keeps in memory (`CACHED_CONNECTIONS`).


class Run:
    """What the parts share: the upstream, the proxies that are compared, and how long to measure."""

    def __init__(self, folder, names, options):
        self.folder, self.names = folder, names
        self.rounds, self.seconds, self.million = options.rounds, options.seconds, options.million
        self.started, self.peaks = [], {}
        self.upstream = self.keep(servers.start_upstream(folder))
        self.proxies = []

    def keep(self, server):
        self.started.append(server)
        return server

    def drop(self, server):
        server.stop()
        self.started.remove(server)

    def stop(self):
        for server in self.started:
            server.stop()

    def tell(self):
        """The ends of all logs."""
        for server in self.started:
            print(f"--- log of {server.name}\n{(server.folder / 'log').read_text()[-2000:]}", file=sys.stderr)

    def compared(self):
        """The proxies, started and checked when they are first asked for."""
        for name in self.names if not self.proxies else ():
            proxy = self.keep(servers.PROXIES[name](self.folder, self.upstream))
            for path, size in servers.BODIES.items():
                servers.wait_for(proxy.url(path), wanted=(401,))
                status, got = servers.fetch(proxy.url(path), headers={"Authorization": servers.CREDENTIAL})
                if (status, len(got)) != (200, size):
                    raise SystemExit(f"{name} answered {status} with {len(got)} bytes for {path}: {got[:300]!r}")
            self.proxies.append(proxy)
        return self.proxies

    def interleaved(self, what, subjects, measure, rounds=None):
        """Medians by name. Another goes first in each round, so that a busy minute hits all alike."""
        seen = {subject.name: [] for subject in subjects}
        rounds = rounds or self.rounds
        for number in range(rounds):
            turn = number % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                seen[subject.name].append(measure(subject))
            print(f"{what}: round {number + 1} of {rounds}", file=sys.stderr)
        return {
            name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for name, runs in seen.items()
        }


def ratio(rows, key, name="claviger", base="nginx"):
    if name in rows and base in rows and rows[base][key]:
        return rows[name][key] / rows[base][key]
    return None


def goal(text, measured, limit):
    return [] if measured is None else [{"goal": text, "measured": measured, "limit": limit, "met": measured <= limit}]


def against_nginx(title, rows, goals):
    for row in rows.values():
        base = rows.get("nginx")
        if base:
            row["cpu_by_nginx"] = row["cpu_us_per_request"] / base["cpu_us_per_request"]
            row["rate_by_nginx"] = row["requests_per_s"] / base["requests_per_s"]
    return {"title": title, "rows": rows, "goals": goals}


def closed(run, path, connections, title, text, limit, script=None, rounds=None):
    proxies = run.compared()
    for proxy in proxies:
        loads.wrk(proxy, path, connections, 1, script)
    rows = run.interleaved(title, proxies, lambda p: loads.wrk(p, path, connections, run.seconds, script), rounds)
    part = against_nginx(f"{title}: wrk -t1 -c{connections}", rows, [])
    part["goals"] = goal(text, ratio(rows, "cpu_us_per_request"), limit)
    return part


def small(run):
    part = closed(run, "1k", 32, "1 KiB GET", "1 KiB: CPU ÷ nginx", 1.10)
    run.peaks = {name: row["requests_per_s"] for name, row in part["rows"].items()}
    return part


def large(run):
    return closed(run, "64k", 16, "64 KiB GET", "64 KiB: CPU ÷ nginx", 1.10, rounds=max(run.rounds - 2, 3))


def upload(run):
    return closed(run, "upload", 4, "1 MiB upload", "1 MiB upload: CPU ÷ nginx", 0.6, "upload", max(run.rounds - 2, 3))


def h2(run):
    proxies = [proxy for proxy in run.compared() if getattr(proxy, "h2_port", None)]
    connections, streams = 8, 4
    rows = run.interleaved("HTTP/2", proxies, lambda p: loads.h2load(p, "1k", connections, streams, run.seconds),
                           max(run.rounds - 2, 3))
    title = f"1 KiB GET over HTTP/2 from the caller, HTTP/1.1 upstream: h2load -t1 -c{connections} -m{streams}"
    part = against_nginx(title, rows, [])
    part["goals"] = goal("HTTP/2, 1 KiB: CPU ÷ nginx", ratio(rows, "cpu_us_per_request"), 1.10)
    return part


def rate(run):
    """Latency at 70 % of what each can do by itself."""
    proxies = run.compared()
    for proxy in proxies:
        if proxy.name not in run.peaks:
            run.peaks[proxy.name] = loads.wrk(proxy, "1k", 32, 3)["requests_per_s"]
    rows = run.interleaved("constant rate", proxies, lambda p: loads.constant_rate(
        p, "1k", 0.7 * run.peaks[p.name], 32, run.seconds), max(run.rounds - 2, 3))
    part = against_nginx("1 KiB GET at a constant rate, 70 % of each one's own peak, 32 connections", rows, [])
    for row in rows.values():
        row["p99_by_nginx"] = row["p99_us"] / rows["nginx"]["p99_us"] if "nginx" in rows else None
    part["goals"] = goal("p99 at 70 % of its own peak ÷ nginx", ratio(rows, "p99_us"), 1.5)
    return part


def workers(run):
    """One worker and two, none of them pinned: load and upstream need the same cores."""
    started = []
    for name in [name for name in run.names if name in ("claviger", "nginx")]:
        for number in (1, 2):
            proxy = servers.PROXIES[name](run.folder, run.upstream, workers=number, name=f"{name}-{number}-workers")
            run.keep(proxy)
            servers.wait_for(proxy.url("1k"), wanted=(401,))
            if proxy.name.endswith("1-workers"):
                for pid in proxy.tree():
                    subprocess.run(["taskset", "-apc", ",".join(map(str, servers.CORES)), str(pid)],
                                   capture_output=True, check=False)
            loads.wrk(proxy, "1k", 32, 1, core=None)
            started.append(proxy)
    rows = run.interleaved("workers", started, lambda p: loads.wrk(p, "1k", 32, run.seconds, core=None), 3)
    for proxy in started:
        run.drop(proxy)
    title = "1 KiB GET with one worker and with two, nothing pinned: wrk and the upstream need the same cores"
    return {"title": title, "rows": rows, "goals": []}


def idle(run, count=10_000):
    """Memory with idle connections, each kept alive after one request."""
    count = min(count, servers.OPEN_FILES // 2 - 200)
    rows = {}
    for name in [name for name in run.names if name != "floor"]:
        proxy = run.keep(servers.PROXIES[name](run.folder, run.upstream, name=f"{name}-idle"))
        servers.wait_for(proxy.url("1k"), wanted=(401,))
        ask = (f"GET /api/1k HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {servers.CREDENTIAL}\r\n\r\n").encode()
        before, sockets = proxy.resident_mib(), []
        try:
            for _ in range(count):
                sockets.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=10))
                exchange(sockets[-1], ask)
            # Buffers may be given back only after a while.
            time.sleep(5)
            rows[name] = {"connections": count, "before_mib": before, "rss_mib": proxy.resident_mib()}
            rows[name]["kib_each"] = (rows[name]["rss_mib"] - before) * 1024 / count
            # All of them are still there.
            for kept in sockets[::100]:
                exchange(kept, ask)
        finally:
            for kept in sockets:
                kept.close()
        run.drop(proxy)
    measured = rows.get("claviger", {}).get("rss_mib")
    return {"title": f"{count} idle connections, kept alive after one request each", "rows": rows,
            "goals": goal(f"RSS with {count} idle connections, MiB", measured, 60)}


def exchange(connection, ask):
    connection.sendall(ask)
    got = b""
    while b"\r\n\r\n" not in got or len(got) - got.index(b"\r\n\r\n") - 4 < servers.BODIES["1k"]:
        part = connection.recv(65536)
        if not part:
            raise SystemExit(f"a connection was closed: {got[:300]!r}")
        got += part
    if not got.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"a request was answered with {got[:300]!r}")


def start(run, times=7):
    spans, resident = [], []
    for number in range(times):
        gateway = run.keep(servers.Gateway(run.folder, f"start-{number}", profiles=10))
        begun = time.monotonic()
        gateway.run()
        spans.append((time.monotonic() - begun) * 1e3)
        time.sleep(0.5)
        resident.append(gateway.resident_mib())
        run.drop(gateway)
    row = {"start_ms": statistics.median(spans), "rss_mib": statistics.median(resident)}
    return {"title": "Start-up with 10 profiles, from spawn to ready, and memory when idle", "rows": {"claviger": row},
            "goals": goal("start-up, ms", row["start_ms"], 200) + goal("idle RSS, MiB", row["rss_mib"], 30)}


def curve(run, title, points, measure):
    """Cost by point; all points are there at once, so that their rounds can be interleaved."""
    rows = run.interleaved(title, points, measure, 3)
    first = next(iter(rows.values()))["cpu_us_per_request"]
    for row in rows.values():
        row["cpu_by_first"] = row["cpu_us_per_request"] / first
    for point in points:
        if point in run.started:
            run.drop(point)
    return {"title": title, "rows": rows, "goals": []}


def connections(run):
    """Fresh tokens of few to many people; `calls` of them are called."""
    points, filled = [], {}
    cached = [(size, min(size, CACHED // 2)) for size in (10, 1000, 100_000, 1_000_000)]
    beyond = [(300_000, 300_000), (1_000_000, 1_000_000)]
    for size, called in cached + beyond:
        if size == 1_000_000 and not run.million:
            continue
        name = f"{size:,} stored, {called:,} called"
        gateway = servers.Gateway(run.folder, f"store-{size}-{called}", run.upstream.port, named=True)
        gateway.run()
        gateway.import_token()
        gateway.stop()
        filled[name] = gateway.fill(size)["seconds"]
        gateway.run()
        gateway.name, gateway.calls, done = name, called, 0
        points.append(run.keep(gateway))
        # Once through all, as far as they are kept in memory.
        while done < min(called, 2 * CACHED):
            done += loads.wrk(gateway, "1k", 32, 2, "spread", ("subjects", called, "once", "", done))["requests"]
    part = curve(run, "A call with a fresh token, by connections in the store", points, lambda gateway: loads.wrk(
        gateway, "1k", 32, run.seconds, "spread", ("subjects", gateway.calls, "random")))
    part["filled_in_s"] = filled
    part["note"] = f"{CACHED:,} connections are kept in memory; beyond them a call reads, opens and parses its record."
    return part


def routes(run):
    points = []
    for count in (1, 100, 1000):
        gateway = servers.start_claviger(run.folder, run.upstream, name=f"{count} routes", routes=count)
        gateway.calls = count
        points.append(run.keep(gateway))
        loads.wrk(gateway, "1k", 32, 1, "spread", ("routes", count, "once"))
    return curve(run, "A call with a fresh token, by routes", points, lambda gateway: loads.wrk(
        gateway, "1k", 32, run.seconds, "spread", ("routes", gateway.calls, "random")))


def callers(run):
    points = []
    for count in (1, 100, 1000):
        gateway = servers.start_claviger(run.folder, run.upstream, name=f"{count} callers", api_keys=count)
        gateway.calls = count
        points.append(run.keep(gateway))
    return curve(run, "A call with a fresh token, by callers, each with an API key", points, lambda gateway: loads.wrk(
        gateway, "1k", 32, run.seconds, "spread", ("callers", gateway.calls, "random", servers.API_KEY), credential=False))


PARTS = {
    "start": start, "1k": small, "64k": large, "upload": upload, "rate": rate, "h2": h2, "workers": workers,
    "idle": idle, "connections": connections, "routes": routes, "callers": callers,
}

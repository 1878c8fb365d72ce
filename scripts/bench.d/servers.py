"""The servers of a measurement: one upstream, and the proxies that are compared."""

import base64
import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request

BODIES = {"1k": 1024, "64k": 64 * 1024}
TOKEN = "bench" + "t" * 795
PASSWORD = secrets.token_hex(16)
CREDENTIAL = "Basic " + base64.b64encode(f"bench:{PASSWORD}".encode()).decode()
ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("BENCH_BINARY", ROOT / "target/release/claviger"))
# The proxy has one core, load and upstream the other. With a single core, nothing is pinned.
CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, LOAD_CORE = (CORES[0], CORES[1]) if len(CORES) > 1 else (None, None)


def pinned(command, core):
    return command if core is None else ["taskset", "-c", str(core), *command]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url, method="GET", body=None, headers=None):
    """Status and body; status 0 if nobody answers."""
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def wait_for(url, wanted=(200,), seconds=10.0, pause=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if fetch(url)[0] in wanted:
            return
        time.sleep(pause)
    raise SystemExit(f"{url} did not answer with {wanted} within {seconds} s")


class Server:
    """A process, its children, and what they cost."""

    def __init__(self, name, folder, port):
        self.name, self.folder, self.port = name, pathlib.Path(folder) / name, port
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None

    def start(self, command, core, env=None):
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            pinned([str(part) for part in command], core),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.folder,
        )

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def url(self, body):
        return f"http://127.0.0.1:{self.port}/api/{body}"

    def tree(self):
        """Process ids of the process and all below it."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = pathlib.Path("/proc", entry, "stat").read_text()
                except OSError:
                    continue
                parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += parents.get(pid, [])
        return found

    def cpu_seconds(self):
        """User and system time of the tree so far."""
        ticks = 0
        for pid in self.tree():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        """Resident memory of the tree."""
        kib = 0
        for pid in self.tree():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            kib += int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
        return kib / 1024


NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; large_client_header_buffers 4 16k;
  map_hash_bucket_size 2048;
{http}
}}
"""


def nginx(name, folder, port, http, core):
    server = Server(name, folder, port)
    user = "user root;" if os.geteuid() == 0 else ""
    (server.folder / "nginx.conf").write_text(NGINX.format(folder=server.folder, user=user, http=http))
    server.start(["nginx", "-e", server.folder / "error.log", "-c", server.folder / "nginx.conf"], core)
    return server


def start_upstream(folder):
    """Static files, for whoever brings the token; anybody else gets a 403."""
    port = free_port()
    files = pathlib.Path(folder) / "files"
    files.mkdir()
    for name, size in BODIES.items():
        (files / name).write_bytes(b"x" * size)
    http = f"""
  map $http_authorization $allowed {{ default 0; "Bearer {TOKEN}" 1; }}
  server {{
    listen 127.0.0.1:{port};
    root {files};
    location = /alive {{ return 200; }}
    location / {{ if ($allowed = 0) {{ return 403; }} }}
  }}"""
    server = nginx("upstream", folder, port, http, LOAD_CORE)
    wait_for(f"http://127.0.0.1:{port}/alive")
    return server


def start_nginx(folder, upstream):
    port = free_port()
    http = f"""
  map $http_authorization $known {{ default 0; "{CREDENTIAL}" 1; }}
  upstream api {{ server 127.0.0.1:{upstream.port}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location /api/ {{
      if ($known = 0) {{ return 401; }}
      proxy_pass http://api/;
      proxy_http_version 1.1;
      proxy_buffer_size 16k;
      proxy_buffers 8 16k;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {TOKEN}";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Via "1.1 bench";
    }}
  }}"""
    return nginx("nginx", folder, port, http, PROXY_CORE)


def start_haproxy(folder, upstream):
    server = Server("haproxy", folder, free_port())
    config = server.folder / "haproxy.cfg"
    config.write_text(f"""
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend internal
  bind 127.0.0.1:{server.port}
  acl known req.hdr(authorization) -m str "{CREDENTIAL}"
  http-request deny deny_status 401 unless known
  http-request replace-path /api(/.*) \\1
  http-request set-header Authorization "Bearer {TOKEN}"
  option forwardfor
  http-request set-header Via "1.1 bench"
  default_backend api
backend api
  http-reuse always
  server upstream 127.0.0.1:{upstream.port}
""")
    server.start(["haproxy", "-db", "-f", config], PROXY_CORE)
    return server


class Gateway(Server):
    """Claviger with one worker; its tokens are imported, so no provider is needed."""

    def __init__(self, folder, name="claviger", profiles=1, upstream_port=9):
        super().__init__(name, folder, free_port())
        self.admin = f"http://127.0.0.1:{free_port()}"
        hashed = subprocess.run([BINARY, "hash-secret"], input=PASSWORD.encode(), capture_output=True, check=True)
        password_hash = re.search(rb"\$argon2id\$\S+", hashed.stdout).group().decode()
        routes = [f"api{n}" for n in range(profiles)]
        text = f"""
[server]
public_url = "http://127.0.0.1:{free_port()}"
workers = 1
[listeners.proxy]
bind = "127.0.0.1:{self.port}"
[listeners.public]
bind = "127.0.0.1:{free_port()}"
[listeners.admin]
bind = "{self.admin.removeprefix('http://')}"
[store]
backend = "sled"
path = "{self.folder}/tokens"
[store.encryption]
active = "k1"
[store.encryption.keys]
k1 = {{ env = "BENCH_KEY" }}
[providers.none]
token_endpoint = "http://127.0.0.1:9/token"
authorization_endpoint = "http://127.0.0.1:9/authorize"
[callers.bench]
basic = {{ username = "bench", password_hash = "{password_hash}" }}
routes = {json.dumps(routes)}
"""
        for number, route in enumerate(routes):
            text += f"""
[profiles.{route}]
provider = "none"
client_id = "bench"
client_secret = "not used"
grant = "client_credentials"
scopes = []
[routes.{route}]
path = "/api{number or ''}"
upstream = "http://127.0.0.1:{upstream_port}"
profile = "{route}"
subject = "caller"
"""
        (self.folder / "gateway.toml").write_text(text)

    def run(self):
        env = {"PATH": os.environ["PATH"], "CLAVIGER_LOG": "warn",
               "BENCH_KEY": base64.b64encode(secrets.token_bytes(32)).decode()}
        self.start([BINARY, "run", "--config", self.folder / "gateway.toml"], PROXY_CORE, env)

    def import_token(self):
        body = json.dumps({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 86400}).encode()
        status, answer = fetch(f"{self.admin}/api/connections/api0/bench", "PUT", body,
                               {"Content-Type": "application/json"})
        if status not in (200, 201):
            raise SystemExit(f"the import was refused with {status}: {answer.decode(errors='replace')}")


def start_claviger(folder, upstream):
    gateway = Gateway(folder, upstream_port=upstream.port)
    gateway.run()
    wait_for(f"{gateway.admin}/readyz")
    gateway.import_token()
    return gateway


PROXIES = {"claviger": start_claviger, "nginx": start_nginx, "haproxy": start_haproxy}

"""The servers of a measurement: one upstream, and the proxies that are compared."""

import base64
import hashlib
import json
import os
import pathlib
import re
import resource
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
HELPER = pathlib.Path(os.environ.get("BENCH_HELPER", ROOT / "target/release/claviger-bench"))
API_KEY = "key-of-caller-%06d-" + secrets.token_hex(16)
SEALING_KEY = base64.b64encode(secrets.token_bytes(32)).decode()
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
# The proxy has one core, load and upstream the other. With a single core, nothing is pinned.
CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, LOAD_CORE = (CORES[0], CORES[1]) if len(CORES) > 1 else (None, None)


def pinned(command, core):
    command = [str(part) for part in command]
    return command if core is None else ["taskset", "-c", str(core), *command]


def cores_of(workers):
    """The core of a single worker; several run where they like."""
    return PROXY_CORE if workers == 1 else None


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())


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
            pinned(command, core),
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

    def url(self, path, port=None):
        return f"http://127.0.0.1:{port or self.port}/api/{path}"

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
daemon off; worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 15000; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; large_client_header_buffers 4 16k;
  map_hash_bucket_size 2048;
{http}
}}
"""


def nginx(name, folder, port, http, core, workers=1):
    server = Server(name, folder, port)
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX.format(folder=server.folder, user=user, http=http, workers=workers)
    (server.folder / "nginx.conf").write_text(text)
    server.start(["nginx", "-e", server.folder / "error.log", "-c", server.folder / "nginx.conf"], core)
    return server


def start_upstream(folder):
    """Static files, for whoever brings the token; anybody else gets a 403. `/upload` reads a body to
    its end before it answers."""
    port = free_port()
    files = pathlib.Path(folder) / "files"
    files.mkdir()
    for name, size in BODIES.items():
        (files / name).write_bytes(b"x" * size)
    http = f"""
  map $http_authorization $allowed {{ default 0; "Bearer {TOKEN}" 1; }}
  upstream answer {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    root {files};
    location = /alive {{ return 200; }}
    location / {{ if ($allowed = 0) {{ return 403; }} }}
    location = /upload {{
      if ($allowed = 0) {{ return 403; }}
      client_max_body_size 0;
      client_body_buffer_size 2m;
      proxy_pass http://answer/alive;
      proxy_http_version 1.1;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Connection "";
    }}
  }}"""
    server = nginx("upstream", folder, port, http, LOAD_CORE)
    wait_for(f"http://127.0.0.1:{port}/alive")
    return server


def start_nginx(folder, upstream, workers=1, name="nginx"):
    port, h2_port = free_port(), free_port()
    http = f"""
  map $http_authorization $known {{ default 0; "{CREDENTIAL}" 1; }}
  upstream api {{ server 127.0.0.1:{upstream.port}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{h2_port} http2;
    client_max_body_size 0;
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
    server = nginx(name, folder, port, http, cores_of(workers), workers)
    server.h2_port = h2_port
    return server


def start_haproxy(folder, upstream, name="haproxy"):
    server = Server(name, folder, free_port())
    server.h2_port = free_port()
    config = server.folder / "haproxy.cfg"
    config.write_text(f"""
global
  nbthread 1
  maxconn {min(15000, (OPEN_FILES - 200) // 2)}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend internal
  bind 127.0.0.1:{server.port}
  bind 127.0.0.1:{server.h2_port} proto h2
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
    """Claviger; its tokens are imported, so no provider is needed.

    The first of `routes` is /api, the others /api1 and so on. The one caller has a password; without it,
    `api_keys` callers have keys and share a token. `named` takes the subject from the call.
    """

    def __init__(self, folder, name="claviger", upstream_port=9, *, profiles=1, routes=None, api_keys=0,
                 named=False, workers=1):
        super().__init__(name, folder, free_port())
        self.admin, self.workers = f"http://127.0.0.1:{free_port()}", workers
        self.h2_port = self.port
        hashed = subprocess.run([BINARY, "hash-secret"], input=PASSWORD.encode(), capture_output=True, check=True)
        password_hash = re.search(rb"\$argon2id\$\S+", hashed.stdout).group().decode()
        names = [f"api{n}" for n in range(routes or profiles)]
        text = f"""
[server]
public_url = "http://127.0.0.1:{free_port()}"
workers = {workers}
[listeners.proxy]
bind = "127.0.0.1:{self.port}"
h2c = true
[listeners.public]
bind = "127.0.0.1:{free_port()}"
[listeners.admin]
bind = "{self.admin.removeprefix('http://')}"
[store]
backend = "sled"
path = "{self.store}"
[store.encryption]
active = "k1"
[store.encryption.keys]
k1 = {{ env = "BENCH_KEY" }}
[providers.none]
token_endpoint = "http://127.0.0.1:9/token"
authorization_endpoint = "http://127.0.0.1:9/authorize"
"""
        for number in range(api_keys or 1):
            credential = f'basic = {{ username = "bench", password_hash = "{password_hash}" }}'
            if api_keys:
                digest = hashlib.sha256(self.api_key(number).encode()).hexdigest()
                credential = f'api_key_hash = "sha256:{digest}"'
            text += f"""
[callers.bench{number or ''}]
{credential}
routes = {json.dumps(names)}
{"may_name_subject = true" if named else ""}
"""
        for number in range(profiles):
            text += f"""
[profiles.api{number}]
provider = "none"
client_id = "bench"
client_secret = "not used"
grant = "client_credentials"
scopes = []
"""
        for number, route in enumerate(names):
            text += f"""
[routes.{route}]
path = "/api{number or ''}"
upstream = "http://127.0.0.1:{upstream_port}"
profile = "api{number if number < profiles else 0}"
subject = "{'header' if named else 'shared' if api_keys else 'caller'}"
"""
        self.subject = "shared" if api_keys else "bench"
        (self.folder / "gateway.toml").write_text(text)

    @property
    def store(self):
        return self.folder / "tokens"

    @staticmethod
    def api_key(number):
        return API_KEY % number

    def run(self):
        env = {"PATH": os.environ["PATH"], "CLAVIGER_LOG": "warn", "BENCH_KEY": SEALING_KEY}
        self.start([BINARY, "run", "--config", self.folder / "gateway.toml"], cores_of(self.workers), env)
        wait_for(f"{self.admin}/readyz", seconds=60, pause=0.001)

    def import_token(self):
        body = json.dumps({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 86400}).encode()
        status, answer = fetch(f"{self.admin}/api/connections/api0/{self.subject}", "PUT", body,
                               {"Content-Type": "application/json"})
        if status not in (200, 201):
            raise SystemExit(f"the import was refused with {status}: {answer.decode(errors='replace')}")

    def fill(self, count):
        """Copies the imported token under the subjects 0 to count - 1. The gateway must not run."""
        command = [HELPER, "fill", "--store", self.store, "--key", "k1", "--profile", "api0",
                   "--subject", "bench", "--count", str(count)]
        run = subprocess.run(command, env={"BENCH_KEY": SEALING_KEY}, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"the store was not filled: {run.stderr}")
        return json.loads(run.stdout)


def start_claviger(folder, upstream, workers=1, name="claviger", **shape):
    gateway = Gateway(folder, name, upstream.port, workers=workers, **shape)
    gateway.run()
    gateway.import_token()
    return gateway


def start_floor(folder, upstream):
    """The least proxy that hyper allows."""
    server = Server("floor", folder, free_port())
    server.start([HELPER, "floor", "--bind", f"127.0.0.1:{server.port}", "--upstream", f"127.0.0.1:{upstream.port}",
                  "--prefix", "/api", "--credential", CREDENTIAL, "--token", f"Bearer {TOKEN}"], PROXY_CORE)
    return server


PROXIES = {"claviger": start_claviger, "floor": start_floor, "nginx": start_nginx, "haproxy": start_haproxy}

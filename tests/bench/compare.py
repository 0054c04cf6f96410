"""Measures miwid and nginx in turns. Called by `run`, which explains the method."""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = str(CORES[0]), str(CORES[-1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(root):
    """The process and everything below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    family = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


def cpu_seconds(root):
    """User and system time of the process tree until now."""
    total = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return total / TICK


class Server:
    """A server under test, pinned to its core."""

    def __init__(self, name, command, port, cwd):
        self.name, self.port = name, port
        self.url = f"http://127.0.0.1:{port}/file.html"
        self.log = open(Path(cwd) / f"{name}.log", "wb")
        self.process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *command],
            cwd=cwd, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )

    def wait(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as link:
                    link.sendall(b"GET /file.html HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    head = link.recv(65536)
                    if head.startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{self.name} does not serve; its log:\n{Path(self.log.name).read_text(errors='replace')}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(server, seconds, connections):
    before = cpu_seconds(server.process.pid)
    run = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", server.url],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 30, check=True,
    )
    spent = cpu_seconds(server.process.pid) - before
    requests = int(re.search(r"(\d+) requests in", run.stdout)[1])
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", run.stdout)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", run.stdout)
    return {
        "requests_per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", run.stdout)[1]),
        "cpu_microseconds_per_request": spent / max(requests, 1) * 1e6,
        "failed": (int(wrong[1]) if wrong else 0) + (sum(map(int, errors.groups())) if errors else 0),
    }


def start_miwid(binary, directory):
    port = free_port()
    config = Path(directory) / "miwid.toml"
    config.write_text(
        f'[server]\nbind = ["127.0.0.1"]\nhttp_port = {port}\nworkers = 1\n'
        f'state_dir = "{directory}/state"\n[admin]\nlisten = "off"\n'
        f'[backends."_"]\nroot = "{directory}/www"\n'
    )
    return Server("miwid", [binary, "run", "-c", str(config), "--socket", f"{directory}/control.sock"], port, directory)


def start_nginx(directory):
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = Path(directory) / "nginx.conf"
    config.write_text(
        f"{user} worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log stderr;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000;\n"
        "  open_file_cache max=1000 inactive=60s; types { text/html html; }\n"
        f"  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;\n"
        f"  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;\n"
        f"  server {{ listen 127.0.0.1:{port}; root {directory}/www; }} }}\n"
    )
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    return Server("nginx", [nginx, "-p", directory, "-c", str(config)], port, directory)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--results", required=True)
    options = parser.parse_args()
    binary = str(Path(options.binary).resolve())

    with tempfile.TemporaryDirectory(prefix="miwi-bench-") as directory:
        os.chmod(directory, 0o755)
        (Path(directory) / "www").mkdir()
        (Path(directory) / "www/file.html").write_bytes(b"x" * 1024)
        servers = []
        try:
            servers.append(start_nginx(directory))
            servers.append(start_miwid(binary, directory))
            for server in servers:
                server.wait()
            samples = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for server in servers:
                    samples[server.name].append(measure(server, options.seconds, options.connections))
        finally:
            for server in servers:
                server.stop()

    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in samples.items()
    }
    lines = [f"{'server':<8} {'requests/s':>12} {'CPU us/request':>15} {'failed':>7}"]
    for name, row in medians.items():
        failed = sum(run["failed"] for run in samples[name])
        lines.append(
            f"{name:<8} {row['requests_per_second']:>12.0f} {row['cpu_microseconds_per_request']:>15.2f} {failed:>7}"
        )
    build = "release" if "release" in Path(binary).parts else "debug"
    lines.append(
        f"1 KB file, {options.connections} connections, {options.rounds} x {options.seconds} s, "
        f"server on core {SERVER_CORE}, wrk on core {LOAD_CORE}, miwid {build} build"
    )
    print("\n".join(lines))
    results = Path(options.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / "file-1k.txt").write_text("\n".join(lines) + "\n")
    (results / "file-1k.json").write_text(json.dumps({"build": build, "median": medians, "samples": samples}, indent=2))
    failed = sum(run["failed"] for run in samples["miwid"])
    if failed:
        sys.exit(f"miwid failed {failed} requests")


if __name__ == "__main__":
    main()

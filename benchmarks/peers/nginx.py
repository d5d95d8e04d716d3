"""nginx in the gateway's place, in front of the very same workers: Debian's package, one worker process, loopback.

It keeps its connections to the workers open, as ours does, and buffers request and answer, as ours does. It knows no
keys, no canaries and no dead workers: what it costs is what passing on costs in C.
"""

import getpass
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

KEPT = 512  # connections to a worker that are kept open
MOST = 4096  # connections; more than any load here makes
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def installed() -> str | None:
    """The program, which Debian puts where only root's shell looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def version(program: str) -> str:
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
    return (told.stdout + told.stderr).strip().rpartition("/")[2]


def config(folder: Path, port: int, sockets: Mapping[str, Path]) -> str:
    """``sockets``: of each task's worker. ``/v1/<task>/predict`` is passed on; ``/readyz`` is its own."""
    upstreams = "".join(
        f"  upstream {task} {{ server unix:{path}; keepalive {KEPT}; }}\n" for task, path in sockets.items()
    )
    routes = "".join(f"    location = /v1/{task}/predict {{ proxy_pass http://{task}/predict; }}\n" for task in sockets)
    paths = "".join(f"  {name}_temp_path {folder / name};\n" for name in _TEMPORARY)
    return f"""\
daemon off;
user {getpass.getuser()};
worker_processes 1;
pid {folder / "nginx.pid"};
events {{ worker_connections {MOST * 2}; }}
worker_rlimit_nofile {MOST * 4};
http {{
{paths}  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  client_body_buffer_size 8m;
  proxy_buffers 16 64k;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_next_upstream off;
{upstreams}  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /readyz {{ return 200; }}
{routes}  }}
}}
"""


def start(folder: Path, port: int, sockets: Mapping[str, Path]) -> int | None:
    """Its first process; ``None`` where it is not installed. ``folder``: its own, for all that it writes."""
    program = installed()
    if program is None:
        return None
    folder.mkdir()
    written = folder / "nginx.conf"
    written.write_text(config(folder, port, sockets), "utf-8")
    with (folder / "nginx.log").open("ab") as log:
        command = [program, "-e", str(folder / "error.log"), "-c", str(written)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return process.pid

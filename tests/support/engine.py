"""Keeps a Docker engine of a test's own, in a network namespace of its own.

    unshare --net python3 engine.py DIRECTORY GROUP BRIDGE

DIRECTORY holds everything, GROUP is the id of the group that may use its docker.sock, BRIDGE the
address of the default bridge. Images and containers lie in memory (about 1 GB): thousands of small
files took ten times as long on a busy disk. Takes one command a line on standard input and answers
each with one line, `ok` or `failed: WHY`:

    start [FLAG...]   dockerd with these flags more; answers when it does
    terminate         SIGTERM to dockerd, and waits for its end
    kill              SIGKILL
    listen PATH       hands a TCP socket that listens in the engine's network to PATH, a Unix socket

At the end of standard input, which also comes when the test is killed, everything that was
started ends and what it stored is gone. The namespace is why a default bridge does no harm to the one of
the machine's own engine, and it goes with this process.
"""

import array
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

DIRECTORY, GROUP, BRIDGE = sys.argv[1:]
API = f"{DIRECTORY}/docker.sock"
EXEC = f"{DIRECTORY}/exec"
DATA = f"{DIRECTORY}/data"
CONTAINERD = f"{DIRECTORY}/containerd.sock"
# Seconds. Starting took 1 s on an idle machine; with containers to restore, several.
STARTS = 90
ENDS = 60

running = {}


def run(name, command):
    with open(f"{DIRECTORY}/{name}.log", "ab") as log:
        running[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            # A Ctrl-C in the terminal is the test's; what follows from it is decided here.
            start_new_session=True,
        )


def alive(name):
    return name in running and running[name].poll() is None


def wait(what, limit, condition):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit} s")
        time.sleep(0.05)


class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(2)
        self.sock.connect(API)


def answers():
    if not alive("dockerd"):
        with open(f"{DIRECTORY}/dockerd.log", errors="replace") as log:
            raise RuntimeError("dockerd ended: " + " | ".join(log.read().splitlines()[-5:]))
    try:
        connection = Local("engine")
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def start(*flags):
    if alive("dockerd"):
        raise RuntimeError("it runs already")
    if not os.path.exists(DATA):
        os.mkdir(DATA)
        memory = ["mount", "-t", "tmpfs", "-o", "size=4g,mode=0700", "tmpfs", DATA]
        subprocess.run(memory, check=True)
    for name in ("containerd.toml", "dockerd.json"):
        with open(f"{DIRECTORY}/{name}", "w") as file:
            file.write("{}" if name.endswith("json") else SETTINGS)
    if not alive("containerd"):
        run("containerd", ["containerd", "--config", f"{DIRECTORY}/containerd.toml"])
        wait("containerd's socket", STARTS, lambda: os.path.exists(CONTAINERD))
    daemon = ["dockerd", "--config-file", f"{DIRECTORY}/dockerd.json"]
    daemon += ["--data-root", f"{DATA}/docker", "--exec-root", EXEC, "--group", GROUP]
    daemon += ["--bip", f"{BRIDGE}/24"]
    daemon += ["--pidfile", f"{DIRECTORY}/dockerd.pid", "--host", f"unix://{API}"]
    daemon += ["--containerd", CONTAINERD, *flags]
    run("dockerd", daemon)
    wait("dockerd's answer", STARTS, answers)


SETTINGS = f"""version = 2
root = "{DATA}/containerd"
state = "{EXEC}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{CONTAINERD}"
"""


def end(name, number):
    if alive(name):
        running[name].send_signal(number)
        try:
            running[name].wait(ENDS)
        except subprocess.TimeoutExpired:
            running[name].kill()
            running[name].wait()


def listen(path):
    # Every container has a way to the bridge's own address.
    server = socket.create_server(("0.0.0.0", 0), backlog=64)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        descriptor = array.array("i", [server.fileno()])
        client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
    server.close()


def leftovers():
    """Processes that name our directory: shims, and what they hold."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace")
        except OSError:
            continue
        if CONTAINERD in words and int(pid) != os.getpid() and "shim" in words:
            found.append(int(pid))
    return found


def clean_up():
    if leftovers() and not alive("dockerd"):
        start()
    if alive("dockerd"):
        docker = ["docker", "--host", f"unix://{API}"]
        listed = subprocess.run([*docker, "ps", "-aq"], capture_output=True, text=True)
        if listed.stdout.split():
            subprocess.run([*docker, "rm", "-f", "-v", *listed.stdout.split()], stdout=subprocess.DEVNULL)
    end("dockerd", signal.SIGTERM)
    for pid in leftovers():
        os.kill(pid, signal.SIGKILL)
    end("containerd", signal.SIGTERM)
    with open("/proc/self/mounts") as mounts:
        points = [line.split()[1] for line in mounts]
    for point in reversed(points):
        if point.startswith(f"{DIRECTORY}/"):
            subprocess.run(["umount", "--lazy", point])
    # Root's, where the test is not.
    for directory in (DATA, EXEC):
        shutil.rmtree(directory, ignore_errors=True)


def obey(verb, *words):
    if verb == "start":
        start(*words)
    elif verb == "terminate":
        end("dockerd", signal.SIGTERM)
    elif verb == "kill":
        end("dockerd", signal.SIGKILL)
    elif verb == "listen":
        listen(*words)
    else:
        raise RuntimeError(f"no such command: {verb}")


signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ["PATH"] += ":/usr/sbin:/sbin"
try:
    for line in sys.stdin:
        try:
            obey(*line.split())
            print("ok", flush=True)
        except Exception as error:
            print(f"failed: {error}", flush=True)
finally:
    clean_up()

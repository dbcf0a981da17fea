#!/usr/bin/env python3
"""The whole relay beside Debian's Postfix, in one interleaved run.

smtp-source -> relay with its queue on disk -> smtp-sink, which counts. A run is timed from the first octet sent until
the last message has arrived. `cargo xtask bench relay` builds the relay and calls this; everything listens on
loopback, and only what was started here is ended.

It wants root, as Postfix does, and Debian's `postfix` package, whose own service and queue are left alone.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("bench relay: Postfix and control groups want root; run it as root.")
    missing = [name for name in ("postfix", "smtp-source", "smtp-sink") if not shutil.which(name)]
    if missing:
        sys.exit(f"bench relay: {', '.join(missing)} not found; `apt-get install postfix` has them.")
    # So that `finally` and `with` end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench relay: ended by a signal."))
    with contextlib.ExitStack() as stack:
        # Readable by Postfix's own user, unlike most folders of root.
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-", dir=options.dir)))
        folder.chmod(0o755)
        sink = stack.enter_context(Sink(folder))
        relays = []
        for kind in (Posthaste, Postfix):
            (folder / kind.name).mkdir()
            relays.append(stack.enter_context(kind(folder / kind.name, sink.port, options)))
        print(f"{options.m} messages a run over {options.s} {'kept ' if options.keep else ''}sessions, {options.n} runs "
              f"in turn; median (least-most). {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; probe: "
              f"append 4 KiB + fdatasync.")
        print(f"{'relay':10}{'octets':>8}{'msg/s end to end':>20}{'CPU-s/1000':>20}{'peak MiB':>10}{'fsyncs/msg':>12}"
              f"{'probe ms':>20}")
        for size in options.size:
            compare(relays, sink, size, options, folder)


def arguments():
    parser = argparse.ArgumentParser(
        prog="cargo xtask bench relay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", type=int, default=2000, metavar="COUNT", help="messages a run (default %(default)s)")
    parser.add_argument("-n", type=int, default=3, metavar="COUNT", help="runs of each relay (default %(default)s)")
    parser.add_argument("-s", type=int, default=20, metavar="COUNT", help="sessions at once (default %(default)s)")
    parser.add_argument("--size", type=int, nargs="+", default=[1024, 10240], metavar="OCTETS",
                        help="message sizes (default 1024 10240)")
    parser.add_argument("--keep", action="store_true", help="keep the sessions open instead of one for each message")
    parser.add_argument("--dir", default="/var/tmp", help="where the queues are (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS",
                        help="after so long a run is given up, and with it the rest (default %(default)s)")
    parser.add_argument("--relay", required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(relays, sink, size, options, folder):
    """One size: a short run of each to warm up, then `-n` runs of each in turn."""
    results = {relay.name: [] for relay in relays}
    for run in range(options.n + 1):
        for relay in relays:
            messages = options.m if run else max(20, options.m // 10)
            result = measure(relay, sink, messages, size, options, folder)
            if run:
                results[relay.name].append(result)
            else:
                relay.group.peak = 0
    for relay in relays:
        rate, cpu, fsyncs, probe = zip(*results[relay.name])
        fsyncs = f"{statistics.median(fsyncs):.3f}" if fsyncs[0] is not None else "-"
        print(f"{relay.name:10}{size:>8}{spread(rate, 0):>20}{spread(cpu, 2):>20}{relay.group.peak / 1024:>10.1f}"
              f"{fsyncs:>12}{spread(probe, 2):>20}", flush=True)


def measure(relay, sink, messages, size, options, folder):
    """(messages a second, CPU seconds per 1,000 messages, fsyncs a message, milliseconds of the disk probe)"""
    probe = probe_disk(folder)
    wanted, cpu, fsyncs, start = sink.messages + messages, relay.group.cpu(), relay.fsyncs(), time.monotonic()
    load = ["smtp-source", "-s", str(min(options.s, messages)), "-m", str(messages), "-l", str(size), "-N",
            *(["-d"] if options.keep else []), "-M", "client.example", "-f", "from@sender.example",
            "-t", "to@recipient.example", f"127.0.0.1:{relay.port}"]
    try:
        subprocess.run(load, check=True, timeout=options.timeout, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        sys.exit(f"bench relay: {relay.name} has not taken {messages} messages; above is what smtp-source says.")
    except subprocess.TimeoutExpired:
        sys.exit(f"bench relay: {relay.name} has not taken {messages} messages in {options.timeout:.0f} s; given up.")
    while sink.messages < wanted:
        if time.monotonic() - start > options.timeout:
            sys.exit(f"bench relay: {relay.name} has delivered {messages - (wanted - sink.messages)} of {messages} "
                     f"messages after {options.timeout:.0f} s; given up.")
        time.sleep(0.02)
    took = sink.at - start
    relay.group.look()
    # What a relay does behind its last delivery is its own too.
    time.sleep(0.5)
    if sink.messages > wanted:
        sys.exit(f"bench relay: {relay.name} has delivered {sink.messages - wanted} messages too many.")
    cpu, after = relay.group.cpu() - cpu, relay.fsyncs()
    fsyncs = None if after is None else (after - fsyncs) / messages
    return messages / took, cpu / messages * 1000, fsyncs, (probe + probe_disk(folder)) / 2


def probe_disk(folder):
    """How busy the disk is now: the median of 25 appends of 4 KiB with fdatasync, in milliseconds."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(25):
            start = time.monotonic()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.monotonic() - start)
    return statistics.median(times) * 1000


class Program:
    """A program with all its children in a control group, from start to end."""

    name = ""

    def __init__(self, folder, argv, port):
        self.folder, self.argv, self.port = folder, argv, port
        self.group = Group(self.name)

    def __enter__(self):
        with (self.folder / f"{self.name}.log").open("wb") as log:
            # In a session of its own, so that Ctrl-C comes here alone and everything ends in order.
            self.process = subprocess.Popen(self.group.inside(self.argv), start_new_session=True, cwd=self.folder,
                                            stdin=subprocess.DEVNULL, stdout=self.stdout(), stderr=log)
        try:
            self.wait_until_it_greets()
            self.group.watch()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.group.end()
        self.process.wait()

    def stdout(self):
        return subprocess.DEVNULL

    def wait_until_it_greets(self):
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                    connection.settimeout(10)
                    if connection.recv(512).startswith(b"220"):
                        connection.sendall(b"QUIT\r\n")
                        connection.recv(512)
                        return
            time.sleep(0.1)
        for log in self.folder.glob("*.log"):
            sys.stderr.write(log.read_text(errors="replace")[-2000:])
        sys.exit(f"bench relay: {self.name} does not answer on port {self.port}; above is what it said.")

    def fsyncs(self):
        """How many there were so far, when the relay says so."""
        return None


class Sink(Program):
    """The next hop: it throws everything away, and the moment is noted at which the last message came."""

    name = "sink"

    def __init__(self, folder):
        port = free_port()
        self.messages, self.at = 0, 0.0
        super().__init__(folder, ["smtp-sink", "-u", "postfix", "-c", "-m", "2000", f"127.0.0.1:{port}", "1024"], port)

    def __enter__(self):
        super().__enter__()
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def stdout(self):
        return subprocess.PIPE

    def read(self):
        """It writes a line of counters for every message; read in batches, good to 5 ms, it costs next to nothing."""
        while octets := os.read(self.process.stdout.fileno(), 65536):
            now = time.monotonic()
            counts = re.findall(rb"mesg=(\d+)\s", octets)
            if counts and int(counts[-1]) > self.messages:
                self.messages, self.at = int(counts[-1]), now
            time.sleep(0.005)


class Posthaste(Program):
    """This project's relay."""

    name = "posthaste"

    def __init__(self, folder, next_hop, options):
        port = free_port()
        self.relay, self.config = options.relay, folder / "relay.toml"
        self.config.write_text(f"""hostname = "relay.example"
queue = "queue"
relay_from = ["127.0.0.0/8"]

[[listener]]
address = "127.0.0.1:{port}"

[[route]]
domains = ["*"]
to = ["127.0.0.1:{next_hop}"]
tls = "off"
""")
        super().__init__(folder, [self.relay, "serve", "--config", str(self.config)], port)

    def fsyncs(self):
        status = subprocess.run([self.relay, "status", "--config", str(self.config)], check=True, capture_output=True,
                                text=True, timeout=30).stdout
        return int(re.search(r"^fsyncs (\d+)$", status, re.MULTILINE)[1])


class Postfix(Program):
    """Postfix as Debian builds it, with a configuration, a queue and a master of its own. It syncs once a message."""

    name = "postfix"

    def __init__(self, folder, next_hop, options):
        port, config, spool, data = free_port(), folder / "config", folder / "spool", folder / "data"
        for path in (config, spool, data):
            path.mkdir()
        shutil.chown(data, "postfix")
        shutil.chown(spool, group="postdrop")
        (config / "main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {spool}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = relay.example
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{next_hop}
disable_dns_lookups = yes
smtp_tls_security_level = none
smtpd_tls_security_level = none
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
""")
        # name type private unpriv chroot wakeup maxproc command; the other columns are Debian's, without its chroot.
        (config / "master.cf").write_text(f"""127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
""")
        for name in ("postfix-files", "dynamicmaps.cf"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"/etc/postfix/{name}", config / name)
        super().__init__(folder, ["postfix", "-c", str(config), "start-fg"], port)


class Group:
    """A control group (version 1 or 2): the CPU time of all its processes, those that have ended too."""

    def __init__(self, name):
        candidates = [pathlib.Path("/sys/fs/cgroup", part) for part in ("cpuacct", "unified", ".")]
        base = next((base for base in candidates if (base / "cgroup.procs").exists()), None)
        if base is None:
            sys.exit("bench relay: no control groups below /sys/fs/cgroup.")
        self.path = base / f"relay-bench-{os.getpid()}-{name}"
        self.path.mkdir()
        self.peak = 0
        self.ended = threading.Event()

    def inside(self, argv):
        """The command line that runs in the group from its first moment."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.path / "cgroup.procs"), *argv]

    def processes(self):
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def cpu(self):
        """Seconds of CPU time."""
        version_1 = self.path / "cpuacct.usage"
        if version_1.exists():
            return int(version_1.read_text()) / 1e9
        return int(re.search(r"usage_usec (\d+)", (self.path / "cpu.stat").read_text())[1]) / 1e6

    def watch(self):
        """Keeps the peak of the memory, looked at twice a second."""
        def repeat():
            while not self.ended.wait(0.5):
                self.look()
        threading.Thread(target=repeat, daemon=True).start()

    def look(self):
        """The memory now in KiB; what processes share is counted once."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                rollup = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])
        self.peak = max(self.peak, total)

    def end(self):
        """Ends every process that was started in it, each by its id."""
        self.ended.set()
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            end = time.monotonic() + patience
            while (processes := self.processes()) and time.monotonic() < end:
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, number)
                time.sleep(0.5)
        with contextlib.suppress(OSError):
            self.path.rmdir()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()

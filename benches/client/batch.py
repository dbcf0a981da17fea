#!/usr/bin/env python3
"""Batches of the client beside Postfix's smtp-source, over a path with a delay, in interleaved runs.

smtp-source -> delay -> smtp-sink, `bulk` with DATA over the same, and `bulk` with BDAT -> delay -> `sink`. A run is
timed from the start of the sending process until its end. Everything listens on loopback, and only what was started
here is ended. It wants Debian's `postfix` package for smtp-source and smtp-sink; no service of it is started.

    cargo build --release --package posthaste-examples --bin bulk --bin delay --bin sink
    python3 benches/client/batch.py target/release
"""

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time


def main():
    options = arguments()
    missing = [name for name in ("smtp-source", "smtp-sink") if not shutil.which(name)]
    if missing:
        sys.exit(f"batch: {', '.join(missing)} not found; `apt-get install postfix` has them.")
    program = lambda name: os.path.join(options.programs, name)
    with contextlib.ExitStack() as stack:
        start = lambda *command: stack.enter_context(Running(command))
        postfix, ours, to_postfix, to_ours = (f"127.0.0.1:{free_port()}" for _ in range(4))
        # smtp-sink refuses to run as root without a user.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        start("smtp-sink", *user, postfix, "200")
        start(program("sink"), ours, "chunking")
        start(program("delay"), to_postfix, postfix, str(options.round_trip))
        start(program("delay"), to_ours, ours, str(options.round_trip))
        for address in (postfix, ours, to_postfix, to_ours):
            wait_for(address)
        connections, octets = str(options.connections), str(options.octets)
        kinds = {
            "smtp-source, DATA": (options.messages, lambda n: [
                "smtp-source", "-d", "-s", connections, "-m", str(n), "-l", octets, "-f", "me@example.org",
                "-t", "you@example.net", to_postfix]),
            "bulk, DATA": (options.messages * 4, lambda n: [program("bulk"), to_postfix, str(n), connections, octets, "data"]),
            "bulk, BDAT": (options.messages * 40, lambda n: [program("bulk"), to_ours, str(n), connections, octets]),
        }
        rates = {kind: [] for kind in kinds}
        for run in range(options.runs):
            for kind, (messages, command) in kinds.items():
                begun = time.monotonic()
                done = subprocess.run(command(messages), stdout=subprocess.PIPE, check=True, text=True)
                rates[kind].append(messages / (time.monotonic() - begun))
                if "bulk" in kind and f"{messages} taken, 0 failed" not in done.stdout:
                    sys.exit(f"batch: {kind}: {done.stdout}")
            print(f"run {run + 1}: " + ", ".join(f"{kind} {rate[-1]:,.0f}" for kind, rate in rates.items()), flush=True)
    base = statistics.median(rates["smtp-source, DATA"])
    print(f"\n{'messages a second':20} {'median':>8} {'least':>8} {'most':>8} {'times':>6}")
    for kind, found in rates.items():
        median = statistics.median(found)
        print(f"{kind:20} {median:8,.0f} {min(found):8,.0f} {max(found):8,.0f} {median / base:6.1f}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("programs", help="the folder of bulk, delay and sink")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1_000, help="of smtp-source; the others send more")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--octets", type=int, default=1_024)
    parser.add_argument("--round-trip", type=int, default=20, help="milliseconds that are added to a round trip")
    return parser.parse_args()


class Running:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address):
    host, port = address.split(":")
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.1)
    sys.exit(f"batch: nothing listens at {address}.")


if __name__ == "__main__":
    main()

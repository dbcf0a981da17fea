#!/usr/bin/env python3
"""A name server with a zone from the command line.  Standard library only.

    nameserver.py PORT ZONE     ZONE is JSON: {"dest.test": {"MX": [[10, "mx1.dest.test"]], "A": ["127.0.0.1"]}, ...}

A name that is not in the zone does not exist; "SERVFAIL" instead of records is an error of the server's.  It answers
over UDP and TCP, prints {"port": N} when it does and then each question as a line of JSON, and ends when standard input
does.  PORT must be free for both: the caller chooses it, because the system hands out ports that are free for one only.
"""
import json, os, socket, struct, sys, threading

TYPES = dict(A=1, NS=2, CNAME=5, SOA=6, MX=15, TXT=16, AAAA=28, TLSA=52)
ZONE = {name.lower(): records for name, records in json.loads(sys.argv[2]).items()}


def encode(name):
    return b''.join(bytes([len(label)]) + label.encode() for label in name.split('.') if label) + b'\0'


def rdata(kind, value):
    if kind == 'MX':
        return struct.pack('>H', value[0]) + encode(value[1])
    if kind in ('NS', 'CNAME'):
        return encode(value)
    if kind == 'TXT':
        return bytes([len(value)]) + value.encode()
    return socket.inet_pton(socket.AF_INET if kind == 'A' else socket.AF_INET6, value)


def answer(query):
    ident, flags, questions = struct.unpack('>HHH', query[:6])
    labels, i = [], 12
    while query[i]:
        labels.append(query[i + 1:i + 1 + query[i]].decode('latin1'))
        i += 1 + query[i]
    kind, _ = struct.unpack('>HH', query[i + 1:i + 5])
    question = query[12:i + 5]
    name = '.'.join(labels).lower()
    kind = next((k for k, v in TYPES.items() if v == kind), str(kind))
    print(json.dumps([name, kind]), flush=True)
    records, code, answers = ZONE.get(name), 0, b''
    count = 0
    if records is None:
        # an inner node of the zone exists without records of its own
        code = 0 if any(n.endswith('.' + name) for n in ZONE) else 3
    elif records == 'SERVFAIL':
        code = 2
    else:
        use = kind if kind in records else 'CNAME' if 'CNAME' in records else None
        for value in records.get(use, []) if use else []:
            data = rdata(use, value)
            answers += b'\xc0\x0c' + struct.pack('>HHIH', TYPES[use], 1, 60, len(data)) + data
            count += 1
    authority = b''
    if not count and code in (0, 3):
        soa = encode('ns.test') + encode('root.test') + struct.pack('>IIIII', 1, 60, 60, 60, 1)
        authority = encode('test') + struct.pack('>HHIH', TYPES['SOA'], 1, 1, len(soa)) + soa
    return struct.pack('>HHHHHH', ident, 0x8480 | flags & 0x100 | code, 1, count, 1 if authority else 0, 0) + question + answers + authority


def udp(s):
    while True:
        query, peer = s.recvfrom(4096)
        s.sendto(answer(query), peer)


def tcp(s):
    while True:
        c, _ = s.accept()
        with c, c.makefile('rb') as f:
            size = f.read(2)
            if len(size) == 2:
                reply = answer(f.read(struct.unpack('>H', size)[0]))
                c.sendall(struct.pack('>H', len(reply)) + reply)


u, t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
u.bind(('127.0.0.1', int(sys.argv[1])))
t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
t.bind(u.getsockname())
t.listen()
print(json.dumps(dict(port=u.getsockname()[1])), flush=True)
for serve, s in ((udp, u), (tcp, t)):
    threading.Thread(target=serve, args=(s,), daemon=True).start()
sys.stdin.read()
os._exit(0)

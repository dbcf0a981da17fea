#!/usr/bin/env python3
"""Keeps several connections busy and records what has been acknowledged.  Standard library only.

    loader.py PORT ACKED [--connections N] [--seconds S] [--limit N] [--prefix TEXT] [--octets N] [--pause S]

Every message carries a token of its own (`Token: PREFIX-connection-number`).  A token is appended to the file
ACKED, in one write, after the 250 to the end of data has been read and never before.  A connection that breaks
is opened again until the time is up.  At the end it prints
    {"acknowledged": N, "sent": N, "refused": {"452": N}, "broken": N}
"""
import argparse, json, os, socket, threading, time

ap = argparse.ArgumentParser()
ap.add_argument('port', type=int)
ap.add_argument('acked')
ap.add_argument('--connections', type=int, default=8)
ap.add_argument('--seconds', type=float, default=5)
ap.add_argument('--limit', type=int, default=10 ** 9)
ap.add_argument('--prefix', default='load')
ap.add_argument('--octets', type=int, default=2000)
ap.add_argument('--pause', type=float, default=0, help='seconds between two messages of a connection')
ap.add_argument('--recipient', default='load@dest.test')
a = ap.parse_args()

end = time.monotonic() + a.seconds
out = os.open(a.acked, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
lock = threading.Lock()
count = dict(acknowledged=0, sent=0, broken=0)
refused = {}


class Broken(Exception):
    pass


class Refused(Exception):
    pass


def reply(f):
    while True:
        line = f.readline()
        if not line.endswith(b'\r\n'):
            raise Broken()
        if line[3:4] != b'-':
            return line[:3].decode()


def expect(f, code):
    got = reply(f)
    if got != code:
        raise Refused(got)


def work(number):
    n = 0
    filler = (b'0123456789abcdef' * 4 + b'\r\n') * (a.octets // 66 + 1)
    while time.monotonic() < end:
        try:
            s = socket.create_connection(('127.0.0.1', a.port), 5)
            s.settimeout(20)
            f = s.makefile('rb')
            expect(f, '220')
            s.sendall(b'EHLO load.test\r\n')
            expect(f, '250')
            while time.monotonic() < end:
                with lock:
                    if count['sent'] >= a.limit:
                        return
                    count['sent'] += 1
                n += 1
                token = '%s-%d-%d' % (a.prefix, number, n)
                s.sendall(b'MAIL FROM:<load@sender.test>\r\nRCPT TO:<%s>\r\nDATA\r\n' % a.recipient.encode())
                expect(f, '250')
                expect(f, '250')
                expect(f, '354')
                s.sendall(b'Token: %s\r\nSubject: load\r\n\r\n%s.\r\n' % (token.encode(), filler[:a.octets // 66 * 66]))
                expect(f, '250')
                os.write(out, token.encode() + b'\n')
                with lock:
                    count['acknowledged'] += 1
                time.sleep(a.pause)
        except Refused as e:
            with lock:
                refused[str(e)] = refused.get(str(e), 0) + 1
            time.sleep(0.05)
        except (Broken, OSError):
            with lock:
                count['broken'] += 1
            time.sleep(0.05)


threads = [threading.Thread(target=work, args=(i,)) for i in range(a.connections)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(json.dumps(dict(count, refused=refused)))

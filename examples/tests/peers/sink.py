#!/usr/bin/env python3
"""A strict next hop that records every octet and can be told to misbehave.  Standard library only.

Strict: a command ends at CRLF only, DATA ends at CRLF.CRLF only.  Whatever a client sends that a strict
receiver may not get (bare CR or LF, lines over 1000 octets, octets before the 354, ...) is noted in
Conn.violations.

As a program:

    sink.py [--port N] [--out DIR] [--certificate PEM --key PEM] [--no-extensions] [--implicit-tls]

It prints {"port": N} when it listens, then reads one JSON object a line from standard input and answers each
with one line.  It ends when standard input does, so it never outlives the test that started it.

    {"do": "rule", "stage": S, "act": [...], "key": TEXT, "times": N, "skip": N}     see below
    {"do": "clear"}                                     forget all rules
    {"do": "wait", "token": T, "count": N, "seconds": S}  until N messages that contain T have been taken
    {"do": "tally", "pattern": RE}                      how often each match of RE's group 1 has been taken
    {"do": "violations"}  {"do": "connections"}  {"do": "down"}  {"do": "up"}

A rule: dict(stage=..., do=..., key=None, times=None, skip=0)
  stage  connect ehlo helo starttls mail rcpt data body eod bdat rset quit noop
  key    bytes that must occur in the current transaction's sender, recipients
         or in the command line itself (None: any connection)
  times  how often it fires (None: for ever); skip: matches to let pass first
  do     ('reply', bytes)        send these bytes (CRLF is added if missing)
         ('replydrop', bytes)    send, then close
         ('drop',) ('rst',)      close / reset without a reply
         ('hang', secs)          say nothing for so long, then close
         ('delay', secs)         wait, then act normally
         ('slow', secs)          normal reply, one byte at a time
         ('raw', [bytes|float])  send pieces, pausing for floats, no CRLF added
         ('ext', [keywords])     (ehlo) answer with exactly these
         ('badtls',)             (starttls) 220, then garbage for a handshake
         ('inject', bytes)       (starttls) 220 plus these plain bytes, then TLS
         ('bodydrop', n)         (body) close after n octets of content
"""
import argparse, json, os, re, socket, ssl, struct, sys, threading, time


class Msg:
    __slots__ = ('t', 'conn', 'mail', 'mail_args', 'rcpts', 'raw', 'data', 'how', 'tls', 'helo', 'file')

    def __init__(self, **k):
        for a, b in k.items():
            setattr(self, a, b)


class Closed(Exception):
    pass


class Conn:
    n = 0

    def __init__(self, sink, sock, peer):
        self.sink, self.sock, self.peer = sink, sock, peer
        self.buf = b''
        self.began = self.t0 = time.time()
        self.log = []           # (dt, 'C'|'S'|'!', bytes)
        self.violations = []
        self.tls = False
        self.helo = None
        self.reset()
        with sink.cv:
            Conn.n += 1
            self.id = Conn.n
            sink.conns.append(self)

    def reset(self):
        self.mail = None
        self.mail_args = b''
        self.rcpts = []
        self.chunks = None

    def note(self, s):
        self.violations.append(s)
        self.log.append((time.time() - self.t0, '!', s.encode()))

    def send(self, b):
        self.log.append((time.time() - self.t0, 'S', b))
        self.sock.sendall(b)

    def more(self):
        b = self.sock.recv(65536)
        if not b:
            raise Closed()
        self.buf += b
        self.log.append((time.time() - self.t0, 'C', b if len(b) < 4096 else b[:2048] + b'...' + b[-1024:]))

    def line(self):
        while True:
            i = self.buf.find(b'\r\n')
            if i >= 0:
                l, self.buf = self.buf[:i], self.buf[i + 2:]
                if b'\n' in l or b'\r' in l:
                    self.note('bare CR or LF inside a command line')
                if len(l) > 510:
                    self.note('command line of %d octets' % (len(l) + 2))
                return l
            if len(self.buf) > 200000:
                raise Closed()
            self.more()

    def rule(self, stage, line=b''):
        return self.sink.match(stage, b'\0'.join([self.mail or b''] + [r[0] for r in self.rcpts] + [line]))

    def act(self, stage, normal, line=b''):
        """normal: bytes.  Returns True if the normal reply went out."""
        r = self.rule(stage, line)
        if not r:
            self.send(normal)
            return True
        d = r['do']
        k = d[0]
        if k == 'reply' or k == 'replydrop':
            b = d[1] if d[1].endswith(b'\n') else d[1] + b'\r\n'
            self.send(b)
            if k == 'replydrop':
                raise Closed()
            return b[:1] in b'23' and b[:3] == normal[:3]
        if k == 'drop':
            raise Closed()
        if k == 'rst':
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            raise Closed()
        if k == 'hang':
            end = time.time() + d[1]
            self.sock.settimeout(1)
            while time.time() < end and not self.sink.stopping:
                try:
                    if not self.sock.recv(65536):
                        break
                except (TimeoutError, socket.timeout):
                    pass
            raise Closed()
        if k == 'delay':
            time.sleep(d[1])
            self.send(normal)
            return True
        if k == 'slow':
            for i in range(len(normal)):
                self.sock.sendall(normal[i:i + 1])
                time.sleep(d[1])
            self.log.append((time.time() - self.t0, 'S', normal))
            return True
        if k == 'raw':
            for p in d[1]:
                if isinstance(p, bytes):
                    self.send(p)
                else:
                    time.sleep(p)
            return len(d) > 2 and d[2]
        raise ValueError(k)

    def run(self):
        s = self.sink
        try:
            self.sock.settimeout(s.timeout)
            if s.implicit_tls:
                self.sock = s.tlsctx.wrap_socket(self.sock, server_side=True)
                self.tls = True
            if not self.act('connect', b'220 sink.test ESMTP\r\n'):
                pass
            while True:
                self.command(self.line())
        except (Closed, OSError, ssl.SSLError, EOFError) as e:
            self.log.append((time.time() - self.t0, '!', repr(e).encode()))
            if self.mail is not None:
                self.log.append((time.time() - self.t0, '!', b'connection ended inside a transaction'))
        finally:
            try:
                self.sock.close()
            except OSError:
                pass

    def command(self, line):
        s = self.sink
        verb = line.split(b' ', 1)[0].split(b':', 1)[0].upper()
        if verb in (b'EHLO', b'HELO', b'LHLO'):
            self.reset()
            ext = [e for e in s.ext if not (e == b'STARTTLS' and (self.tls or not s.tlsctx))]
            if verb == b'EHLO':
                r = s.peek('ehlo', line)
                if r and r['do'][0] == 'ext':
                    s.match('ehlo', line)
                    ext = r['do'][1]
                ls = [b'sink.test greets you'] + list(ext)
                out = b''.join(b'250%s%s\r\n' % (b' ' if i == len(ls) - 1 else b'-', l) for i, l in enumerate(ls))
                if r and r['do'][0] == 'ext':
                    self.send(out)
                    self.helo = line[5:]
                elif self.act('ehlo', out, line):
                    self.helo = line[5:]
            else:
                if self.act('helo', b'250 sink.test\r\n', line):
                    self.helo = line[5:]
        elif verb == b'STARTTLS':
            r = self.rule('starttls', line)
            if r and r['do'][0] == 'reply':
                self.send(r['do'][1] + b'\r\n')
                return
            if r and r['do'][0] == 'drop':
                raise Closed()
            if r and r['do'][0] == 'badtls':
                self.send(b'220 2.0.0 go\r\n')
                self.sock.recv(1000)
                self.sock.sendall(b'\x15\x03\x01\x00\x02\x02\x28 no tls here')
                raise Closed()
            if not s.tlsctx:
                self.send(b'502 5.5.1 no TLS\r\n')
                return
            if self.buf:
                self.note('data pipelined after STARTTLS')
            self.send(b'220 2.0.0 go\r\n' + (r['do'][1] if r and r['do'][0] == 'inject' else b''))
            self.buf = b''
            self.sock = s.tlsctx.wrap_socket(self.sock, server_side=True)
            self.tls = True
            self.helo = None
            self.reset()
        elif verb == b'MAIL':
            m = re.match(rb'MAIL FROM:\s*<((?:[^<>"]|"(?:[^"\\]|\\.)*")*)>(.*)$', line, re.I | re.S)
            if self.helo is None:
                self.note('MAIL before EHLO')
            if not m:
                self.note('unparsable MAIL: %r' % line)
                self.send(b'501 5.5.4 syntax\r\n')
                return
            if self.mail is not None:
                self.note('nested MAIL')
                self.send(b'503 5.5.1 nested MAIL\r\n')
                return
            self.reset()
            self.mail, self.mail_args = m.group(1), m.group(2).strip()
            if not self.act('mail', b'250 2.1.0 ok\r\n', line):
                self.reset()
        elif verb == b'RCPT':
            m = re.match(rb'RCPT TO:\s*<((?:[^<>"]|"(?:[^"\\]|\\.)*")*)>(.*)$', line, re.I | re.S)
            if not m:
                self.note('unparsable RCPT: %r' % line)
                self.send(b'501 5.5.4 syntax\r\n')
                return
            if self.mail is None:
                self.send(b'503 5.5.1 need MAIL\r\n')
                return
            if self.act('rcpt', b'250 2.1.5 ok\r\n', line):
                self.rcpts.append((m.group(1), m.group(2).strip()))
        elif verb == b'DATA':
            if not self.rcpts:
                self.send(b'503 5.5.1 need RCPT\r\n')
                return
            if self.buf:
                self.note('octets pipelined after DATA')
            if self.act('data', b'354 go\r\n', line):
                self.body()
        elif verb == b'BDAT':
            m = re.match(rb'BDAT (\d+)( LAST)?$', line, re.I)
            if not m:
                self.note('unparsable BDAT: %r' % line)
                self.send(b'501 5.5.4 syntax\r\n')
                return
            n = int(m.group(1))
            while len(self.buf) < n:
                self.more()
            chunk, self.buf = self.buf[:n], self.buf[n:]
            if not self.rcpts:
                self.send(b'503 5.5.1 need RCPT\r\n')
                return
            self.chunks = (self.chunks or b'') + chunk
            if m.group(2):
                data = self.chunks
                if self.act('eod', b'250 2.0.0 accepted\r\n', line):
                    self.store(data, data, 'BDAT')
                self.reset()
            else:
                if not self.act('bdat', b'250 2.0.0 %d octets\r\n' % n, line):
                    self.reset()
        elif verb == b'RSET':
            self.reset()
            self.act('rset', b'250 2.0.0 ok\r\n', line)
        elif verb == b'NOOP':
            self.act('noop', b'250 2.0.0 ok\r\n', line)
        elif verb == b'QUIT':
            self.reset()
            self.act('quit', b'221 2.0.0 bye\r\n', line)
            raise Closed()
        else:
            self.note('unknown command %r' % line[:80])
            self.send(b'500 5.5.2 unknown\r\n')

    def body(self):
        r = self.rule('body')
        limit = r['do'][1] if r and r['do'][0] == 'bodydrop' else None
        got = bytearray(b'\r\n')   # so that an immediate dot ends it
        seen = 0                    # octets in which no end begins
        while True:
            got += self.buf
            self.buf = b''
            i = got.find(b'\r\n.\r\n', seen)
            if i >= 0:
                raw = bytes(got[2:i + 2])
                self.buf = bytes(got[i + 5:])
                break
            seen = max(0, len(got) - 4)
            if limit is not None and len(got) - 2 > limit:
                raise Closed()
            self.more()
        t = raw.replace(b'\r\n', b'')
        if b'\n' in t or b'\r' in t:
            self.note('bare %s in content' % ('CR and LF' if b'\r' in t and b'\n' in t else 'LF' if b'\n' in t else 'CR'))
        lines = raw.split(b'\r\n')
        if any(len(l) > 998 + l.startswith(b'.') for l in lines):
            self.note('content line over 1000 octets (%d)' % (max(map(len, lines)) + 2))
        data = b'\r\n'.join(l[1:] if l.startswith(b'.') else l for l in lines)
        if self.act('eod', b'250 2.0.0 accepted\r\n'):
            self.store(raw, data, 'DATA')
        self.reset()

    def store(self, raw, data, how):
        s = self.sink
        m = Msg(t=time.time(), conn=self, mail=self.mail, mail_args=self.mail_args, rcpts=list(self.rcpts),
                raw=raw, data=data, how=how, tls=self.tls, helo=self.helo, file=None)
        with s.cv:
            if s.outdir:
                # before anybody is told of the message, so that whoever hears of it can read it
                m.file = os.path.join(s.outdir, '%06d.eml' % len(s.messages))
                with open(m.file, 'wb') as f:
                    f.write(data)
            s.messages.append(m)
            s.cv.notify_all()


class Sink:
    EXT = [b'PIPELINING', b'SIZE 52428800', b'STARTTLS', b'ENHANCEDSTATUSCODES', b'8BITMIME', b'DSN', b'SMTPUTF8', b'CHUNKING']

    def __init__(self, host='127.0.0.1', port=0, tlsctx=None, outdir=None, ext=None, implicit_tls=False):
        self.cv = threading.Condition()
        self.messages, self.conns, self.rules = [], [], []
        self.ext = list(ext if ext is not None else self.EXT)
        self.tlsctx, self.outdir, self.implicit_tls = tlsctx, outdir, implicit_tls
        self.timeout = 300
        self.stopping = False
        self.paused = False
        self.s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind((host, port))
        self.host, self.port = self.s.getsockname()
        self.s.listen(256)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.stopping:
            try:
                c, p = self.s.accept()
            except OSError:
                return
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Conn(self, c, p).run, daemon=True).start()

    def add(self, **r):
        r.setdefault('times', None)
        r.setdefault('key', None)
        r.setdefault('skip', 0)
        r['hits'] = 0
        with self.cv:
            self.rules.append(r)
        return r

    def remove(self, *rs):
        with self.cv:
            for r in rs:
                if r in self.rules:
                    self.rules.remove(r)

    def _find(self, stage, hay):
        for r in self.rules:
            if r['stage'] != stage or (r['key'] is not None and r['key'] not in hay):
                continue
            if r['times'] is not None and r['hits'] >= r['times'] + r['skip']:
                continue
            if r.get('until') and time.time() > r['until']:
                continue
            return r

    def peek(self, stage, hay=b''):
        with self.cv:
            return self._find(stage, hay)

    def match(self, stage, hay=b''):
        with self.cv:
            r = self._find(stage, hay)
            if not r:
                return None
            r['hits'] += 1
            r.setdefault('at', []).append(time.time())
            if r['hits'] <= r['skip']:
                return None
            return r

    def find(self, token):
        token = token if isinstance(token, bytes) else token.encode()
        with self.cv:
            return [m for m in self.messages if token in m.data or token in m.mail or any(token in r[0] for r in m.rcpts)]

    def to(self, token):
        """messages with the token in a recipient"""
        token = token if isinstance(token, bytes) else token.encode()
        with self.cv:
            return [m for m in self.messages if any(token in r[0] for r in m.rcpts)]

    def wait(self, pred, timeout):
        end = time.time() + timeout
        with self.cv:
            while True:
                r = pred()
                if r:
                    return r
                left = end - time.time()
                if left <= 0:
                    return r
                self.cv.wait(min(left, 0.2))

    def down(self):
        """stop listening (connections are refused)"""
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.s.close()

    def up(self):
        self.s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind((self.host, self.port))
        self.s.listen(256)
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.stopping = True
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.s.close()


def as_bytes(x):
    """JSON text, also inside lists, as the bytes that rules want"""
    if isinstance(x, str):
        return x.encode()
    return [as_bytes(y) for y in x] if isinstance(x, list) else x


def answer(sink, q):
    do = q['do']
    if do == 'rule':
        act = q['act']
        sink.add(stage=q['stage'], do=tuple([act[0]] + [as_bytes(x) for x in act[1:]]), key=as_bytes(q.get('key')),
                 times=q.get('times'), skip=q.get('skip') or 0)
        return {}
    if do == 'clear':
        sink.remove(*list(sink.rules))
        return {}
    if do == 'wait':
        sink.wait(lambda: len(sink.find(q['token'])) >= q['count'], q['seconds'])
        return dict(messages=[describe(m) for m in sink.find(q['token'])])
    if do == 'tally':
        rx, seen = re.compile(q['pattern'].encode()), {}
        with sink.cv:
            messages = list(sink.messages)
        for m in messages:
            for t in set(rx.findall(m.data)):
                seen[t.decode('latin1')] = seen.get(t.decode('latin1'), 0) + 1
        return dict(messages=len(messages), seen=seen)
    if do == 'violations':
        return dict(violations=[v for c in list(sink.conns) for v in c.violations])
    if do == 'connections':
        return dict(connections=[dict(tls=c.tls, t=c.began, log=[(round(dt, 2), who, b.decode('latin1')[:300]) for dt, who, b in c.log[:200]])
                                 for c in list(sink.conns)])
    if do == 'down':
        sink.down()
        return {}
    if do == 'up':
        sink.up()
        return {}
    return dict(error='there is no order %r' % do)


def describe(m):
    return dict(mail=m.mail.decode('utf-8', 'backslashreplace'), args=m.mail_args.decode('latin1'),
                rcpts=[[a.decode('utf-8', 'backslashreplace'), b.decode('latin1')] for a, b in m.rcpts],
                how=m.how, tls=m.tls, t=m.t, file=m.file)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--port', type=int, default=0)
    ap.add_argument('--out', default=None)
    ap.add_argument('--certificate')
    ap.add_argument('--key')
    ap.add_argument('--no-extensions', action='store_true')
    ap.add_argument('--implicit-tls', action='store_true')
    a = ap.parse_args()
    ctx = None
    if a.certificate:
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(a.certificate, a.key)
    ext = [] if a.no_extensions else None
    sink = Sink(port=a.port, tlsctx=ctx, outdir=a.out, ext=ext, implicit_tls=a.implicit_tls)
    print(json.dumps(dict(port=sink.port)), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(sink, json.loads(line))), flush=True)


if __name__ == '__main__':
    main()

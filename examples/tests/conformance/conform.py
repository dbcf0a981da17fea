#!/usr/bin/env python3
"""Runs conformance.cases against a server at HOST:PORT.  Standard library only.

    conform.py HOST PORT [--sub P] [--tls P] [--sink-port P] [--only REGEX] [--cases FILE] [--json OUT]

PORT takes mail for --domain without AUTH, --sub is the submission port, --tls the one with implicit TLS.
With --sink-port a recording next hop listens there, where the server has to deliver; --certificate and --key
let it offer STARTTLS.  Without it delivery is not checked.  OUT receives every case with its transcript.
"""
import argparse, base64, email.utils, os, re, socket, ssl, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from common import token, Results, identical, strip_prepended, split_headers
from smtpc import Raw, Closed, Timeout, BadReply, stuffed, ehlo_words


CASES = os.path.join(HERE, 'conformance.cases')


class Fail(Exception):
    pass


class NA(Exception):
    pass


def unescape(s, v):
    """text with escapes and {substitutions} -> bytes"""
    out, i = b'', 0
    while i < len(s):
        c = s[i]
        if c == '\\' and i + 1 < len(s):
            n = s[i + 1]
            if n == 'x':
                out += bytes([int(s[i + 2:i + 4], 16)])
                i += 4
                continue
            out += {'r': b'\r', 'n': b'\n', 't': b'\t', '0': b'\0'}.get(n, n.encode())
            i += 2
        elif c == '{':
            j = s.index('}', i)
            k = s[i + 1:j]
            m = re.match(r'(.)\*(\d+)$', k)
            out += m.group(1).encode() * int(m.group(2)) if m else (v[k] if isinstance(v[k], bytes) else v[k].encode())
            i = j + 1
        else:
            out += c.encode()
            i += 1
    return out


def parse(path):
    cases, cur = [], None
    for n, line in enumerate(open(path, encoding='utf-8'), 1):
        line = line.rstrip('\n')
        if line.startswith('#') or not line.strip():
            continue
        if line.startswith('= '):
            f = [x.strip() for x in line[2:].split(' | ', 4)]
            cur = dict(id=f[0], ref=f[1], level=f[2], needs=[x for x in f[3].split() if x != '-'], title=f[4], steps=[], line=n)
            cases.append(cur)
        else:
            cur['steps'].append(line)
    return cases


def bodies(t):
    head = ('From: <snd-%s@sender.test>\r\nTo: <rcp-%s@dest.test>\r\nSubject: conformance %s\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n'
            'Message-ID: <%s@client.test>\r\nMIME-Version: 1.0\r\n' % (t, t, t, t)).encode()
    p = head + b'Content-Type: text/plain; charset=us-ascii\r\n\r\n'
    p8 = head + b'Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
    rec = lambda n: b''.join(b'Received: from h%d.test (h%d.test [192.0.2.%d])\r\n\tby h%d.test with ESMTP id q%d\r\n\tfor <a@b.test>; Mon, 05 Jan 2026 09:00:%02d +0000\r\n' % (i, i, i % 250, i + 1, i, i % 60) for i in range(n))
    return dict(
        std=lambda: p + b'Hello ' + t.encode() + b'\r\n',
        line998=lambda: p + b'x' * 998 + b'\r\nend\r\n',
        dotline998=lambda: p + b'.' + b'y' * 997 + b'\r\nend\r\n',
        mb1=lambda: p + (b'abcdefghijklmnopqrstuvwxyz.' * 2 + b'\r\n') * 18000,
        dots=lambda: p + b'.one\r\n..two\r\n...three\r\n.\x20\r\n..\r\n...\r\nend .\r\n',
        received25=lambda: rec(25) + p + b'x\r\n',
        ascii=lambda: p + b''.join(b'<' + bytes([c]) + b'>' for c in range(1, 128) if c not in (10, 13)) + b'\r\n',
        nul=lambda: p + b'before\0afternul ' + t.encode() + b'\r\n',
        bighead=lambda: head + b'References:' + b''.join(b'\r\n <%d.%s@client.test>' % (i, b'r' * 40) for i in range(1000)) + b'\r\n\r\nbody\r\n',
        lines3000=lambda: p + b''.join(b'%d\r\n' % i for i in range(3000)),
        eightbit=lambda: p8 + b'\xc3\xa9t\xc3\xa9 ' + bytes(c for c in range(1, 256) if c not in (10, 13)) + b'\r\n',
        line5000=lambda: p + b'z' * 5000 + b'\r\nend\r\n',
        kb70=lambda: p + (b'0123456789' * 7 + b'\r\n') * 1000,
        nobody=lambda: head,
        received3=lambda: rec(3) + p + b'x\r\n',
        received110=lambda: rec(110) + p + b'x\r\n',
        oddheaders=lambda: head + b'X-Folded: a\r\n\tb\r\n    c\r\nx-lower:no space\r\nX-Tab:\tvalue\r\nX-Trail: spaces   \r\nX-Empty: \r\nX-Dup: 1\r\nX-Dup: 2\r\nSUBJECT2: caps\r\nX-Long: ' + b'w' * 900 + b'\r\n\r\nbody\r\n',
        blanks=lambda: p + b'text   \r\n\t\r\n \r\n\r\nmore\r\n\r\n\r\n',
        utf8head=lambda: head.replace(b'Subject: conformance', 'Subject: δοκιμή 用户'.encode()) + b'Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n' + 'Grüße\r\n'.encode())


class Case:
    def __init__(self, run, c):
        self.run, self.c = run, c
        self.tok = token()
        self.v = dict(tok=self.tok, dom=run.a.domain, rcpt='rcp-%s@%s' % (self.tok, run.a.domain), **{'from': 'snd-%s@sender.test' % self.tok})
        u, p = run.a.user, run.a.password
        b64 = lambda s: base64.b64encode(s.encode()).decode()
        self.v.update(plain=b64('\0%s\0%s' % (u, p)), plainz=b64('%s\0%s\0%s' % (u, u, p)), plainx=b64('\0%s\0%s\0extra' % (u, p)), user64=b64(u), pass64=b64(p))
        self.bodies = bodies(self.tok)
        self.sent = None
        self.x = None
        self.code = self.text = None
        self.words = {}
        self.late = []
        self.miss = []

    # one step each
    def connect(self, port=None, tls=False):
        a = self.run.a
        self.x = Raw(a.host, port or a.port, a.timeout, tls)
        self.run.raws.append(self.x)
        return self.x

    def expect(self, pat, timeout=None):
        m = re.match(r'(\S+)(?: ([~^]) (.*))?$', pat, re.S)
        self.code, self.text = self.x.reply(timeout)
        codes, op, rx = m.groups()
        if not re.fullmatch(codes, self.code):
            raise Fail('got %s %s, want %s' % (self.code, self.text[0][:60], codes))
        if op == '~' and not re.search(rx, '\n'.join(self.text)):
            raise Fail('reply text %r does not match %r' % ('\n'.join(self.text)[:80], rx))
        if op == '^' and not re.fullmatch(rx, self.code):
            self.miss.append('%s for %s' % (self.code, rx))

    def line(self, s):
        self.x.send(unescape(s, self.v) + b'\r\n')

    def ehlo(self):
        self.line('EHLO client.test')
        self.expect('250')
        self.words = ehlo_words(self.text)

    def mail(self):
        self.line('MAIL FROM:<{from}>')
        self.expect('250')

    def rcpt(self):
        self.line('RCPT TO:<{rcpt}>')
        self.expect('25[01]')

    def body(self, name):
        self.sent = self.bodies[name]()
        self.x.send(stuffed(self.sent))

    def data(self, name='std'):
        self.line('DATA')
        self.expect('354')
        self.body(name)
        self.expect('250', max(60, self.run.a.timeout))

    def starttls(self):
        self.line('STARTTLS')
        self.expect('220')
        self.x.starttls()

    def auth(self):
        self.line('AUTH PLAIN {plain}')
        self.expect('235')

    def msgs(self, tok=None):
        return self.run.sink.find(tok or self.tok)

    def step(self, s):
        op, _, arg = s.partition(' ')
        if op == 'port':
            a = self.run.a
            if arg == 'tls':
                self.connect(a.tls, True)
            else:
                self.connect(a.sub if arg == 'sub' else a.port)
            return
        if self.x is None and not (op == 'py' and arg in ('many_connections', 'enh_multiline')):
            self.connect()
        if op == '>':
            self.line(arg)
        elif op == '>>':
            self.x.send(unescape(arg, self.v))
        elif op == '<':
            self.expect(arg)
        elif op == 'greet':
            self.expect('220')
        elif op in ('ehlo', 'mail', 'rcpt', 'starttls', 'auth'):
            getattr(self, op)()
        elif op == 'helo':
            self.line('HELO client.test')
            self.expect('250')
        elif op == 'data':
            self.data(arg)
        elif op == 'body':
            self.body(arg)
        elif op == 'eof':
            if not self.x.eof():
                raise Fail('server did not close')
        elif op == 'fin':
            self.x.s.shutdown(socket.SHUT_WR)
        elif op == 'close':
            self.x.close()
            time.sleep(0.1)
        elif op == 'sleep':
            time.sleep(float(arg))
        elif op == 'ext':
            if arg not in self.words:
                raise Fail('%s not offered' % arg)
        elif op == 'noext':
            if arg in self.words:
                raise Fail('%s offered' % arg)
        elif op == 'py':
            f = getattr(self, 'py_' + arg)()
            if callable(f):
                self.late.append(f)
        elif op == 'sink':
            n = int(arg.rstrip('+'))
            self.run.sink.wait(lambda: len(self.msgs()) >= n, self.run.a.wait)
            k = len(self.msgs())
            if k < n or (k > n and not arg.endswith('+')):
                raise Fail('%d message(s) at the next hop, want %s' % (k, arg))
        elif op == 'nosink':
            if self.msgs():
                raise Fail('a message arrived: %r' % self.msgs()[0].data[:80])
        elif op == 'verbatim':
            why = identical(self.msgs()[0].data, self.sent)
            if why:
                raise Fail(why)
        else:
            raise ValueError('line %d: %s' % (self.c['line'], s))

    # ---- special steps
    def py_many_connections(self):
        a = self.run.a
        xs = [Raw(a.host, a.port, a.timeout) for _ in range(30)]
        try:
            for x in xs:
                c, t = x.reply()
                if c not in ('220', '421'):
                    raise Fail('greeting ' + c)
        finally:
            for x in xs:
                x.close()

    def py_alive(self):
        x = Raw(self.run.a.host, self.run.a.port, self.run.a.timeout)
        c, t = x.reply()
        x.close()
        if c != '220':
            raise Fail('server not alive: ' + c)

    def py_any_then_alive(self):
        try:
            c, t = self.x.reply()
            if c[0] not in '45':
                raise Fail('got ' + c)
        except Closed:
            pass
        self.py_alive()

    def py_close_then_alive(self):
        try:
            self.x.quiet(8)
        except Closed:
            pass
        if not self.x.closed and not self.x.eof(3):
            raise Fail('connection still open after a failed handshake')
        self.py_alive()

    def py_any_or_close(self):
        try:
            c, t = self.x.reply()
            if c[0] not in '45':
                raise Fail('got ' + c)
        except Closed:
            pass

    def py_rcpt_case(self):
        if not any(r[0].startswith(b'MiXeD.') for m in self.msgs() for r in m.rcpts):
            raise Fail('recipient arrived as %r' % [r[0] for m in self.msgs() for r in m.rcpts])

    def py_rcpt100(self):
        for i in range(100):
            c, t = self.x.cmd('RCPT TO:<%s-%d@%s>' % (self.tok, i, self.run.a.domain))
            if c not in ('250', '251'):
                raise Fail('recipient %d: %s %s' % (i + 1, c, t[0]))
        self.data('std')

        def late():
            def got():
                return len({r[0] for m in self.msgs() for r in m.rcpts}) >= 100
            if not self.run.sink.wait(got, self.run.a.wait):
                raise Fail('%d of 100 recipients reached the next hop' % len({r[0] for m in self.msgs() for r in m.rcpts}))
        if self.run.sink:
            return late

    def py_rcpt1500(self):
        n = 0
        for i in range(0, 1500, 50):
            self.x.send(b''.join(b'RCPT TO:<%s-%d@%s>\r\n' % (self.tok.encode(), j, self.run.a.domain.encode()) for j in range(i, i + 50)))
            for j in range(50):
                c, t = self.x.reply()
                if c == '421':
                    return
                if c[0] not in '245':
                    raise Fail('got ' + c)
                n += c[0] == '2'
        if n < 100:
            raise Fail('only %d taken' % n)
        c, t = self.x.cmd('RSET')
        if c != '250':
            raise Fail('RSET then: ' + c)

    def py_limits_syntax(self):
        w = self.words['LIMITS']
        for p in w:
            m = re.fullmatch(r'([A-Za-z0-9][A-Za-z0-9-]*)=(\d{1,6})', p)
            if not m or int(m.group(2)) < 1:
                raise Fail('bad parameter ' + p)
            if m.group(1).upper() == 'RCPTMAX' and int(m.group(2)) < 100:
                raise Fail(p)

    def pre(self):
        m = self.msgs()[0]
        ok, names = strip_prepended(m.data, self.sent)
        hs, _ = split_headers(m.data)
        if ok:
            return hs[:len(names)]
        old = split_headers(self.sent)[0]
        return [h for h in hs if h not in old]

    def received(self):
        r = [h for h in self.pre() if h.lower().startswith(b'received:')]
        if not r:
            raise Fail('no Received field added')
        f = [h for h in r if re.search(rb'(?i)\bfrom\s', h)]
        return (f or r)[0].decode('utf-8', 'replace')

    def py_empty_then_noop(self):
        self.line('NOOP')
        for _ in range(2):
            c, t = self.x.reply()
            if c == '250':
                return
            if c[0] not in '45':
                raise Fail('got ' + c)
        raise Fail('NOOP not answered 250')

    def py_relay_tricks(self):
        for r in ('<@dest.test:x@not-relayed.invalid>', '<"x@not-relayed.invalid">', '<x@not-relayed.invalid@dest.test>',
                  '<x%not-relayed.invalid@relay.test>', '<x@[192.0.2.9]>'):
            c, t = self.x.cmd('RCPT TO:' + r)
            if c[0] not in '45':
                raise Fail('%s to %s' % (c, r))

    def py_long_line(self):
        try:
            for _ in range(16):
                self.x.send(b'A' * 16384)
            try:
                c, t = self.x.reply(10)
            except Timeout:
                self.x.send(b'\r\n')
                c, t = self.x.reply(10)
            if c[0] not in '45':
                raise Fail('got ' + c)
        except Closed:
            pass
        self.py_alive()

    def py_many_errors(self):
        for i in range(40):
            try:
                c, t = self.x.cmd('XYZZY%d' % i, 30)
            except Closed:
                if self.code == '421' or i and c in ('421', '521', '500', '502', '503', '550', '554'):
                    if c != '421':
                        self.miss.append('closed after %d errors without 421' % i)
                    return
                raise
            if c[0] not in '45':
                raise Fail('got ' + c)

    def py_received_added(self):
        self.received()

    def py_with_smtp(self):
        self.with_('SMTP')

    def py_loop_reply(self):
        c, t = self.x.reply()
        if c[0] in '45':
            return
        return lambda: self.run.sink.to('rcp-' + self.tok) and self._fail('a message with 110 Received fields went on')

    def py_drip(self):
        self.line('DATA')
        self.expect('354')
        self.sent = self.bodies['dots']()
        for c in stuffed(self.sent):
            self.x.s.sendall(bytes([c]))
        self.expect('250')

    def py_split_eod(self):
        end = b'\r\n.\r\n'
        for k in range(1, 5):
            self.mail()
            self.rcpt()
            self.line('DATA')
            self.expect('354')
            self.x.send(b'Subject: ' + self.tok.encode() + b'\r\n\r\nx' + end[:k])
            time.sleep(0.15)
            self.x.send(end[k:])
            self.expect('250')
        return lambda: (self.run.sink.wait(lambda: len(self.msgs()) >= 4, self.run.a.wait), len(self.msgs()) == 4 or self._fail('%d of 4' % len(self.msgs())))

    def py_sender_null(self):
        if self.msgs()[0].mail != b'':
            raise Fail('sender arrived as %r' % self.msgs()[0].mail)

    def py_oversize_then_ok(self):
        self.py_oversize()
        self.line('RSET')
        self.expect('250')
        self.mail()
        self.rcpt()
        self.data('std')

    def py_body_param(self):
        if b'BODY=8BITMIME' not in self.msgs()[0].mail_args.upper():
            raise Fail('MAIL had %r' % self.msgs()[0].mail_args)

    def py_bdat_three(self):
        s = self.sent = self.bodies['dots']()
        i = s.index(b'\r\n', 40) + 1
        j = len(s) - 7
        for a, b, l in ((0, i, 0), (i, j, 0), (j, len(s), 1)):
            self.bdat(s[a:b], l)
            self.expect('250')

    def py_bdat_zero_last(self):
        self.sent = self.bodies['std']()
        self.bdat(self.sent)
        self.expect('250')
        self.bdat(b'', True)
        self.expect('250')

    def py_bdat_pipeline(self):
        s = self.sent = self.bodies['std']()
        f, r = self.v['from'].encode(), self.v['rcpt'].encode()
        self.x.send(b'MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nBDAT 50\r\n%sBDAT %d LAST\r\n%sQUIT\r\n' % (f, r, s[:50], len(s) - 50, s[50:]))
        for e in ('250', '25[01]', '250', '250', '221'):
            self.expect(e)

    def py_dsn_passed(self):
        m = self.msgs()[0]
        a, r = m.mail_args.decode().split(), m.rcpts[0][1].decode().split()
        for w, l in (('RET=HDRS', a), ('ENVID=E%s+2B' % self.tok, a), ('NOTIFY=FAILURE,DELAY', r), ('ORCPT=rfc822;O+2B%s@%s' % (self.tok, self.run.a.domain), r)):
            if w.upper() not in [x.upper() for x in l]:
                raise Fail('%s not in %r / %r' % (w, m.mail_args, m.rcpts[0][1]))

    def py_starttls_or_503(self):
        c, t = self.x.cmd('STARTTLS')
        if c == '220':
            self.x.starttls()
        elif c[0] != '5':
            raise Fail('got ' + c)

    def py_not_offered(self):
        n = 0
        for k, p in (('SMTPUTF8', 'SMTPUTF8'), ('DSN', 'RET=FULL'), ('SIZE', 'SIZE=10'), ('8BITMIME', 'BODY=8BITMIME'), ('DELIVERBY', 'BY=120;R'),
                     ('MT-PRIORITY', 'MT-PRIORITY=3'), ('REQUIRETLS', 'REQUIRETLS'), ('FUTURERELEASE', 'HOLDFOR=60'), ('AUTH', 'AUTH=<>')):
            if k in self.words:
                continue
            try:
                c, t = self.x.cmd('MAIL FROM:<%s> %s' % (self.v['from'], p))
            except Closed:
                if n >= 2:
                    return      # too many errors for it
                raise
            n += 1
            if c[0] == '2':
                if k == 'AUTH':
                    self.x.cmd('RSET')
                    continue
                raise Fail('%s taken though %s is not offered' % (p, k))

    def py_received_syntax(self):
        r = re.sub(r'\r\n([ \t])', r'\1', self.received())
        m = re.match(r'(?i)received:\s*from\s+(\S+)(?:\s+\(.*?\))?\s+by\s+(\S+).*;\s*([^;]+?)\s*$', r, re.S)
        if not m:
            raise Fail('not from .. by .. ; date: %r' % r)
        try:
            d = email.utils.parsedate_to_datetime(m.group(3))
        except Exception:
            d = None
        if d is None or not re.search(r'[+-]\d{4}( \(|$)', m.group(3)):
            raise Fail('date: %r' % m.group(3))
        if abs(d.timestamp() - time.time()) > 600:
            raise Fail('date off: %r' % m.group(3))

    def with_(self, rx):
        r = re.sub(r'\s+', ' ', self.received())
        m = re.search(r'(?i) with (\S+)', r)
        if not m or not re.fullmatch(rx, m.group(1), re.I):
            raise Fail('with %s' % (m and m.group(1)))

    def py_with_esmtp(self):
        self.with_('ESMTP')

    def py_with_esmtps(self):
        self.with_('ESMTPS')

    def py_with_esmtpsa(self):
        self.with_('ESMTPSA')

    def py_with_utf8(self):
        self.with_('UTF8SMTPS?A?')

    def _fail(self, s):
        raise Fail(s)

    def py_nul_ok(self):
        if self.code[0] == '5':
            return

        def late():
            self.run.sink.wait(lambda: self.msgs(), self.run.a.wait)
            m = self.msgs()
            if not m or b'afternul' not in m[0].data:
                raise Fail('content cut at NUL or lost')
        if self.run.sink:
            return late

    def py_no_return_path(self):
        if any(h.lower().startswith(b'return-path:') for h in self.pre()):
            raise Fail('Return-Path added')

    def py_no_for_many(self):
        for m in self.msgs():
            for h in split_headers(m.data)[0]:
                if h.lower().startswith(b'received:'):
                    for a, b in (('rcp-', 'second-'), ('second-', 'rcp-')):
                        if (a + self.tok).encode() in h and any((b + self.tok).encode() in r[0] for r in m.rcpts):
                            raise Fail('FOR shows %s to the other recipient' % a)

    def py_sender_same(self):
        m = self.msgs()[0].mail.decode('utf-8', 'replace')
        if m != '"q %s"@sender.test' % self.tok:
            raise Fail('sender arrived as ' + m)

    def py_noops(self):
        self.x.send(b'NOOP\r\n' * 200)
        for i in range(200):
            c, t = self.x.reply()
            if c == '421' or c[0] in '45' and i >= 5:     # a limit on idle commands is allowed, silence is not
                return
            if c != '250':
                raise Fail('reply %d: %s' % (i, c))

    def py_drip_ehlo(self):
        for b in b'EHLO client.test\r\n':
            self.x.send(bytes([b]))
            time.sleep(0.01)
        self.expect('250')

    def py_size_syntax(self):
        w = self.words['SIZE']
        if w and not re.fullmatch(r'\d{1,20}', w[0]):
            raise Fail('SIZE %s' % w)

    def limit(self):
        w = self.words.get('SIZE') or ['0']
        n = int(w[0])
        if not n or n > 64 << 20:
            raise NA('no usable limit (%d)' % n)
        return n

    def py_oversize(self):
        n = self.limit()
        self.line('DATA')
        self.expect('354')
        blk = (b'o' * 62 + b'\r\n') * 1024
        self.closed_early = False
        try:
            self.x.send(b'Subject: ' + self.tok.encode() + b'\r\n\r\n')
            for _ in range((n + 300000) // len(blk) + 1):
                self.x.s.sendall(blk)
            self.x.send(b'.\r\n')
        except (Closed, OSError):
            self.closed_early = True
        self.expect('5..', 60)

    def py_utf8_param(self):
        m = self.msgs()[0]
        if b'SMTPUTF8' not in m.mail_args.upper().split():
            raise Fail('MAIL had %r' % m.mail_args)
        if 'δοκ-'.encode() not in m.mail or '用户-'.encode() not in m.rcpts[0][0]:
            raise Fail('addresses changed: %r %r' % (m.mail, m.rcpts))

    def bdat(self, b, last=False):
        self.x.send(b'BDAT %d%s\r\n' % (len(b), b' LAST' if last else b'') + b)

    def py_bdat_one(self):
        self.sent = self.bodies['std']()
        self.bdat(self.sent, True)
        self.expect('250')

    def py_bdat_dots(self):
        self.sent = self.bodies['std']() + b'.\r\n..\r\n.x\r\n.\r\nQUIT\r\n'
        self.bdat(self.sent, True)
        self.expect('250')

    def py_bdat_oversize(self):
        n = self.limit()
        b = b'Subject: ' + self.tok.encode() + b'\r\n\r\n' + b'o' * 62 + b'\r\n'
        b = b * ((n + 300000) // len(b) + 1)
        try:
            self.x.send(b'BDAT %d LAST\r\n' % len(b))
            self.x.s.sendall(b)
        except (Closed, OSError):
            pass
        self.expect('5..', 60)

    def py_binarymime_refused(self):
        if 'BINARYMIME' in self.words:
            raise NA('offered')
        c, t = self.x.cmd('MAIL FROM:<%s> BODY=BINARYMIME' % self.v['from'])
        if c[0] != '5':
            raise Fail('got ' + c)

    def py_tls_versions(self):
        c, t = self.x.cmd('STARTTLS')
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.check_hostname = False
        ctx.verify_mode = ssl.CERT_NONE
        try:
            import warnings
            warnings.simplefilter('ignore')
            ctx.set_ciphers('ALL:@SECLEVEL=0')
            ctx.minimum_version = ssl.TLSVersion.TLSv1
            ctx.maximum_version = ssl.TLSVersion.TLSv1_1
        except (ValueError, ssl.SSLError):
            raise NA('this OpenSSL cannot offer TLS 1.1')
        try:
            self.x.starttls(ctx)
            raise Fail('negotiated ' + self.x.s.version())
        except Closed:
            pass
        self.connect()
        self.expect('220')
        self.ehlo()
        self.starttls()
        if self.x.s.version() not in ('TLSv1.2', 'TLSv1.3'):
            raise Fail(self.x.s.version())

    def py_unauth_refused(self):
        c, t = self.x.cmd('MAIL FROM:<%s>' % self.v['from'])
        if c[0] == '5':
            if c != '530':
                self.miss.append('%s for 530' % c)
            return
        c, t = self.x.cmd('RCPT TO:<x@elsewhere.test>')
        if c[0] != '5':
            raise Fail('RCPT got ' + c)
        if c != '530':
            self.miss.append('%s for 530' % c)

    def py_enh_multiline(self):
        def late():
            for x in self.run.raws:
                for i, (c, t, last) in enumerate(x.replies):
                    if i == 0 or len(t) < 2 or c == '250' and not re.match(r'2\.\d', t[0]):
                        continue
                    if len({(re.match(r'\d\.\d+\.\d+', l) or [None])[0] for l in t}) > 1:
                        raise Fail('%s %r' % (c, t))
        return late

    def py_ehlo_syntax(self):
        seen = set()
        for l in self.text[1:]:
            k = l.split(' ')[0]
            if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9-]*(=.*)?', k):
                raise Fail('keyword %r' % l)
            k = k.upper()
            if k in seen:
                raise Fail('%s twice' % k)
            seen.add(k)

class Run:
    def __init__(self, a, sink, res):
        self.a, self.sink, self.res = a, sink, res
        self.raws = []

    def probe(self):
        x = Raw(self.a.host, self.a.port, self.a.timeout)
        x.reply()
        c, t = x.cmd('EHLO client.test')
        words = ehlo_words(t)
        if 'STARTTLS' in words and x.cmd('STARTTLS')[0] == '220':
            # What is offered inside TLS only has its cases too.
            x.starttls()
            c, t = x.cmd('EHLO client.test')
            words = {**ehlo_words(t), **words}
        x.cmd('QUIT')
        x.close()
        return words

    def phase1(self, case):
        c = case.c
        case.status, case.detail = 'pass', ''
        try:
            i = next((i for i, s in enumerate(c['steps']) if s.split()[0] in ('sink', 'nosink')), len(c['steps']))
            case.rest = c['steps'][i:]
            for s in c['steps'][:i]:
                case.at = s
                case.step(s)
        except NA as e:
            case.status, case.detail = 'na', str(e)
        except (Fail, Closed, Timeout, BadReply, OSError, ssl.SSLError) as e:
            case.status, case.detail = 'fail', '%s%s (at: %s)' % ('' if isinstance(e, Fail) else type(e).__name__ + ' ', e, case.at)
        except Exception as e:
            case.status, case.detail = 'fail', 'error in the runner: %r (at %s)' % (e, case.at)
        finally:
            if case.x:
                case.x.close()
        return case

    def phase2(self, case, neg):
        if case.status != 'pass' or not self.sink:
            return
        try:
            isneg = bool(case.rest and case.rest[0].startswith('nosink')) or 'py loop_reply' in case.c['steps']
            if isneg != neg:
                return
            for s in case.rest:
                case.at = s
                case.step(s)
            for f in case.late:
                case.at = 'late check'
                f()
        except NA as e:
            case.status, case.detail = 'na', str(e)
        except (Fail, IndexError) as e:
            case.status, case.detail = 'fail', '%s (at: %s)' % (e, case.at)
        except Exception as e:
            case.status, case.detail = 'fail', 'error in the runner: %r (at %s)' % (e, case.at)

    def go(self, cases):
        a = self.a
        words = self.probe()
        self.res.meta['ehlo'] = {k: ' '.join(v) for k, v in words.items()}
        todo = []
        for c in cases:
            why = None
            for n in c['needs']:
                if n == 'sink':
                    why = None if self.sink else 'no sink'
                elif n in ('sub', 'tls'):
                    why = None if getattr(a, n) else 'no %s port' % n
                elif n not in words:
                    why = '%s not offered' % n
                if why:
                    break
            if why:
                self.res.add(c['id'], 'na', c['title'], c['ref'], c['level'], why)
            else:
                todo.append(Case(self, c))
        with ThreadPoolExecutor(a.jobs) as ex:
            list(ex.map(self.phase1, todo))
        if self.sink:
            time.sleep(1)
            for neg in (False, True):
                if neg:
                    time.sleep(a.settle)
                for case in todo:
                    self.phase2(case, neg)
        for case in todo:
            c = case.c
            d = case.detail
            if case.miss and case.status == 'pass':
                d = 'exact: ' + '; '.join(case.miss)
            st = case.status
            if c['level'] == 'INFO' and st != 'na':
                d, st = '%s %s' % (st, d), 'info'
            self.res.add(c['id'], st, c['title'], c['ref'], c['level'], d, case.x.log if case.x else None)
        # what every reply of the whole run has to satisfy
        bad = [b for x in self.raws for b in x.bad]
        self.res.add('RPL-01', 'fail' if bad else 'pass', 'every reply line of the run is well formed (CRLF, <=512, one code, printable)', '5321 4.2, 4.5.3.1.5', 'MUST', '; '.join(bad[:3]))
        if 'ENHANCEDSTATUSCODES' in words:
            bad = []
            for x in self.raws:
                for i, (c, t, last) in enumerate(x.replies):
                    if i == 0 or c[0] == '3' or c in ('211', '214') or last in (b'EHLO', b'HELO') or len(last) == 1:
                        continue
                    m = re.match(r'(\d)\.(\d{1,3})\.(\d{1,3})( |$)', t[0])
                    if not m or m.group(1) != c[0]:
                        bad.append('%s %s' % (c, t[0][:50]))
            self.res.add('RPL-02', 'fail' if bad else 'pass', 'every 2xx/4xx/5xx reply carries an enhanced code of its class', '2034 3, 4', 'MUST', '%d without, e.g. %s' % (len(bad), '; '.join(sorted(set(bad))[:4])) if bad else '')
        else:
            self.res.add('RPL-02', 'na', 'every 2xx/4xx/5xx reply carries an enhanced code of its class', '2034 3', 'MUST', 'not offered')


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('host')
    ap.add_argument('port', type=int)
    ap.add_argument('--sub', type=int)
    ap.add_argument('--tls', type=int)
    ap.add_argument('--sink-port', type=int)
    ap.add_argument('--certificate')
    ap.add_argument('--key')
    ap.add_argument('--user', default='tester')
    ap.add_argument('--password', default='s3cret pass')
    ap.add_argument('--domain', default='dest.test')
    ap.add_argument('--only', help='run the cases whose id matches this regular expression')
    ap.add_argument('--timeout', type=float, default=15, help='seconds to wait for a reply')
    ap.add_argument('--wait', type=float, default=25, help='seconds to wait for a delivery')
    ap.add_argument('--settle', type=float, default=3, help='seconds after which nothing more is delivered')
    ap.add_argument('--jobs', type=int, default=4)
    ap.add_argument('--cases', default=CASES)
    ap.add_argument('--json')
    a = ap.parse_args()
    sink = None
    if a.sink_port is not None:
        sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'peers'))
        from sink import Sink
        ctx = None
        if a.certificate:
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ctx.load_cert_chain(a.certificate, a.key)
        sink = Sink('127.0.0.1', a.sink_port, tlsctx=ctx)
    results = Results()
    Run(a, sink, results).go([c for c in parse(a.cases) if not a.only or re.search(a.only, c['id'])])
    print(results.line())
    if a.json:
        results.save(a.json)


if __name__ == '__main__':
    main()

"""What the conformance runner needs beside its cases.  Standard library only."""
import json, random, re, ssl, threading

TRACE = ('received', 'return-path', 'delivered-to', 'x-original-to', 'authentication-results', 'received-spf',
         'dkim-signature', 'arc-seal', 'x-haraka-results', 'envelope-to', 'delivery-date', 'x-peer', 'x-mailfrom', 'x-rcptto',
         'x-received', 'x-spam-status')

_rand = random.SystemRandom()


def token():
    return 't' + ''.join(_rand.choice('abcdefghjkmnpqrstuvwxyz23456789') for _ in range(11))


def client_ctx():
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    return c


def split_headers(b):
    """[(raw field bytes incl. CRLF)], rest"""
    out, i = [], 0
    m = re.compile(rb'([!-9;-~]+)[ \t]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*')
    while True:
        k = m.match(b, i)
        if not k:
            return out, b[i:]
        out.append(k.group(0))
        i = k.end()


def strip_prepended(got, sent):
    """got must be: zero or more header fields, then sent exactly. -> (ok, [names of fields put in front])"""
    if not got.endswith(sent):
        return False, None
    pre = got[:len(got) - len(sent)]
    hs, rest = split_headers(pre)
    if rest:
        return False, None
    return True, [h.split(b':', 1)[0].strip().decode('latin1').lower() for h in hs]


def strip_trace(b):
    """drop leading trace fields"""
    hs, rest = split_headers(b)
    i = 0
    while i < len(hs) and hs[i].split(b':', 1)[0].strip().lower().decode('latin1') in TRACE:
        i += 1
    return b''.join(hs[i:]) + rest


def identical(got, sent):
    """'' when got is sent with only trace fields put in front, or a short reason"""
    ok, names = strip_prepended(got, sent)
    if ok:
        bad = [n for n in names if n not in TRACE]
        return 'fields put in front: %s' % ','.join(bad) if bad else ''
    g = strip_trace(got)
    s = strip_trace(sent)
    if g == s:
        return ''
    gh, gb = split_headers(g)
    sh, sb = split_headers(s)
    if gb != sb:
        if gb == sb + b'\r\n' or sb == gb + b'\r\n':
            return 'body differs by a final CRLF (%d/%d)' % (len(gb), len(sb))
        i = next((i for i in range(min(len(gb), len(sb))) if gb[i] != sb[i]), min(len(gb), len(sb)))
        return 'body differs at %d: got %r want %r (len %d/%d)' % (i, gb[max(0, i - 10):i + 20], sb[max(0, i - 10):i + 20], len(gb), len(sb))
    extra = [h for h in gh if h not in sh]
    lost = [h for h in sh if h not in gh]
    if not extra and not lost:
        return 'header order changed'
    if not lost:
        return 'header fields added: ' + ','.join(h.split(b':')[0].decode('latin1') for h in extra)
    return 'header changed: lost %r, new %r' % (lost[:2], extra[:2])


class Results:
    def __init__(self):
        self.meta, self.rows = {}, []
        self.lock = threading.Lock()

    def add(self, id, status, title='', ref='', level='MUST', detail='', transcript=None, secs=None):
        """status: pass fail na info"""
        with self.lock:
            self.rows.append(dict(id=id, status=status, title=title, ref=ref, level=level, detail=detail,
                                  transcript=transcript, secs=secs))
            if status == 'fail':
                print('  FAIL %-34s %-6s %s :: %s' % (id, level, title, detail), flush=True)

    def score(self):
        p = sum(r['status'] == 'pass' for r in self.rows)
        f = sum(r['status'] == 'fail' for r in self.rows)
        na = sum(r['status'] == 'na' for r in self.rows)
        mp = sum(r['status'] == 'pass' and r['level'] == 'MUST' for r in self.rows)
        mf = sum(r['status'] == 'fail' and r['level'] == 'MUST' for r in self.rows)
        return dict(passed=p, failed=f, na=na, must_passed=mp, must_failed=mf)

    def save(self, path):
        with open(path, 'w') as f:
            json.dump(dict(meta=self.meta, score=self.score(), rows=self.rows), f, indent=1, ensure_ascii=True)

    def line(self):
        s = self.score()
        return '%d passed, %d failed, %d n/a (MUST %d of %d)' % (s['passed'], s['failed'], s['na'], s['must_passed'], s['must_passed'] + s['must_failed'])

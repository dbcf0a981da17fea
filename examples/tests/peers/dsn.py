#!/usr/bin/env python3
"""Parses and checks a delivery status notification (RFC 3461, 3464, 6522, 3834, 6533).  Standard library only.

    dsn.py FILE --reverse-path P --forward-path P... --sender A --recipient TOKEN --original TOKEN
           [--reply-text T] [--code 550] [--class 5] [--action failed]

prints {"checks": [{"id", "level", "reference", "title", "problem"}], "per_message": {...}, "recipients": [...]};
a problem is empty when the check holds.
"""
import argparse, email, email.policy, json, re


class Dsn:
    def __init__(self, data):
        self.m = email.message_from_bytes(data, policy=email.policy.compat32)
        self.data = data
        self.parts = self.m.get_payload() if self.m.is_multipart() else []
        self.per_message, self.recipients = {}, []
        self.status_part = next((p for p in self.parts if p.get_content_type() in ('message/delivery-status', 'message/global-delivery-status')), None)
        if self.status_part is not None:
            pl = self.status_part.get_payload()
            blocks = pl if isinstance(pl, list) else [email.message_from_string(x) for x in re.split(r'\r?\n\r?\n', str(pl)) if x.strip()]
            blocks = [{k.lower(): re.sub(r'\s+', ' ', str(v)) for k, v in b.items()} for b in blocks if b.items()]
            if blocks:
                self.per_message, self.recipients = blocks[0], blocks[1:]

    def recipient(self, token):
        return next((r for r in self.recipients if token in r.get('final-recipient', '') or token in r.get('original-recipient', '')), None)

    def returned(self):
        p = self.parts[-1] if len(self.parts) > 2 else None
        return (p.get_content_type(), p.as_bytes()) if p is not None else (None, b'')


def is_dsn(msg):
    return msg.mail == b'' and b'report' in msg.data[:6000].lower()


def checks(msg, sender, rcpt_token, orig_token, reply_text=b'', code='550', klass='5', action='failed'):
    """yields (id, level, ref, title, problem or '')"""
    d = Dsn(msg.data)
    r = d.recipient(rcpt_token)
    ct = d.m.get_content_type()
    yield 'null-sender', 'MUST', '5321 4.5.5', 'sent with the null reverse-path', '' if msg.mail == b'' else repr(msg.mail)
    yield 'to-sender', 'MUST', '5321 3.6.3', 'sent to the reverse-path of the message, once', '' if [x[0] for x in msg.rcpts] == [sender.encode()] else repr(msg.rcpts)
    yield 'report', 'MUST', '3464 2, 6522 3', 'multipart/report; report-type=delivery-status', '' if ct == 'multipart/report' and (d.m.get_param('report-type') or '').lower() == 'delivery-status' else '%s %s' % (ct, d.m.get_param('report-type'))
    yield 'parts', 'MUST', '6522 3', 'first part readable text, second message/delivery-status, at most a third with the message', '' if len(d.parts) in (2, 3) and d.parts[0].get_content_maintype() in ('text', 'multipart') and d.parts[1] is d.status_part else str([p.get_content_type() for p in d.parts])
    yield 'reporting-mta', 'MUST', '3464 2.2.2', 'Reporting-MTA present, type dns', '' if re.match(r'(?i)dns *;? *\S', d.per_message.get('reporting-mta', '')) else repr(d.per_message)
    yield 'final-recipient', 'MUST', '3464 2.3.2', 'Final-Recipient names the failed recipient, type rfc822', '' if r and re.match(r'(?i)(rfc822|utf-8) *; *\S', r.get('final-recipient', '')) else repr(d.recipients)[:200]
    yield 'action', 'MUST', '3464 2.3.3', 'Action: %s' % action, '' if r and r.get('action', '').split()[:1] and r['action'].split()[0].lower() == action else repr(r and r.get('action'))
    yield 'status', 'MUST', '3464 2.3.4', 'Status %s.x.x' % klass, '' if r and re.match(r'%s\.\d{1,3}\.\d{1,3}( |$)' % klass, r.get('status', '')) else repr(r and r.get('status'))
    if reply_text:
        x = (r or {}).get('diagnostic-code', '')
        yield 'diagnostic', 'SHOULD', '3464 2.3.6', 'Diagnostic-Code: smtp; with the reply of the next hop', '' if re.match(r'(?i)smtp *;', x) and reply_text.decode() in x and code in x else repr(x)
        yield 'remote-mta', 'SHOULD', '3464 2.3.5', 'Remote-MTA present', '' if r and r.get('remote-mta') else 'absent'
    yield 'others', 'MUST', '3464 2.3', 'no recipient that did not fail is listed as failed', '' if all(rcpt_token in x.get('final-recipient', '') or x.get('action', '').lower() != 'failed' for x in d.recipients) else repr(d.recipients)[:200]
    t, b = d.returned()
    yield 'returned', 'SHOULD', '3461 6.2, 6522 3', 'original header (or message) returned in the third part', '' if t in ('message/rfc822', 'text/rfc822-headers', 'message/global', 'message/global-headers') and orig_token.encode() in b else repr(t)
    h = {k.lower() for k in d.m.keys()}
    for k, lvl in (('from', 'MUST'), ('date', 'MUST'), ('message-id', 'SHOULD'), ('to', 'SHOULD'), ('subject', 'SHOULD'), ('mime-version', 'MUST')):
        yield 'field-' + k, lvl, '5322 3.6, 3464 2', 'the notification has %s, once' % k.title(), '' if len(d.m.get_all(k, [])) == 1 else '%d' % len(d.m.get_all(k, []))
    yield 'auto-submitted', 'SHOULD', '3834 5', 'Auto-Submitted: auto-replied (or auto-generated)', '' if (d.m.get('Auto-Submitted') or '').lower().startswith('auto-') else repr(d.m.get('Auto-Submitted'))
    body = msg.data.split(b'\r\n\r\n', 1)[-1]
    yield 'lines', 'MUST', '5322 2.1.1', 'no line over 998 octets, CRLF only', '' if all(len(l) <= 998 for l in msg.data.split(b'\r\n')) and not re.search(rb'(?<!\r)\n|\r(?!\n)', body) else 'long or bare'


class Envelope:
    def __init__(self, data, mail, rcpts):
        self.data, self.mail, self.rcpts = data, mail.encode(), [(r.encode(), b'') for r in rcpts]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('file')
    ap.add_argument('--reverse-path', required=True)
    ap.add_argument('--forward-path', action='append', default=[])
    ap.add_argument('--sender', required=True)
    ap.add_argument('--recipient', required=True)
    ap.add_argument('--original', required=True)
    ap.add_argument('--reply-text', default='')
    ap.add_argument('--code', default='550')
    ap.add_argument('--class', dest='klass', default='5')
    ap.add_argument('--action', default='failed')
    a = ap.parse_args()
    msg = Envelope(open(a.file, 'rb').read(), a.reverse_path, a.forward_path)
    rows = checks(msg, a.sender, a.recipient, a.original, a.reply_text.encode(), a.code, a.klass, a.action)
    d = Dsn(msg.data)
    print(json.dumps(dict(checks=[dict(zip(('id', 'level', 'reference', 'title', 'problem'), r)) for r in rows],
                          per_message=d.per_message, recipients=d.recipients)))


if __name__ == '__main__':
    main()

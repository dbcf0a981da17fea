#!/usr/bin/env python3
"""Sends one message with smtplib.  Standard library only.

Reads one JSON object from standard input:
    {"port": N, "tls": "none" | "starttls" | "implicit", "user": U, "password": P, "mechanism": "PLAIN" | "LOGIN",
     "from": A, "to": [A...], "file": PATH, "mail_options": [...], "rcpt_options": [...]}
and prints {"refused": {recipient: [code, text]}, "extensions": {...}} or {"error": TEXT, "code": N}.
"""
import json, smtplib, ssl, sys

q = json.load(sys.stdin)
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
try:
    if q.get('tls') == 'implicit':
        s = smtplib.SMTP_SSL('127.0.0.1', q['port'], local_hostname='client.test', timeout=30, context=context)
    else:
        s = smtplib.SMTP('127.0.0.1', q['port'], local_hostname='client.test', timeout=30)
    s.ehlo()
    if q.get('tls') == 'starttls':
        s.starttls(context=context)
        s.ehlo()
    if q.get('user'):
        if q.get('mechanism'):
            s.user, s.password = q['user'], q['password']
            method = getattr(s, 'auth_' + q['mechanism'].lower())
            s.auth(q['mechanism'], method)
        else:
            s.login(q['user'], q['password'])
    with open(q['file'], 'rb') as f:
        data = f.read()
    refused = s.sendmail(q['from'], q['to'], data, q.get('mail_options') or [], q.get('rcpt_options') or [])
    # Forgotten with the connection.
    extensions = s.esmtp_features
    s.quit()
    print(json.dumps(dict(refused={k: [c, t.decode('latin1')] for k, (c, t) in refused.items()}, extensions=extensions)))
except smtplib.SMTPRecipientsRefused as e:
    k, (code, text) = next(iter(e.recipients.items()))
    print(json.dumps(dict(error=text.decode('latin1'), code=code)))
except smtplib.SMTPResponseException as e:
    t = e.smtp_error
    print(json.dumps(dict(error=t.decode('latin1') if isinstance(t, bytes) else str(t), code=e.smtp_code)))
except (smtplib.SMTPException, OSError) as e:
    print(json.dumps(dict(error='%s: %s' % (type(e).__name__, e), code=0)))

#!/usr/bin/env python3
"""Logs in with other people's code alone: TLS and its keying material by OpenSSL, SCRAM by GNU SASL.  Standard library only.

Reads one JSON object from standard input:
    {"port": N (TLS from the first octet), "user": U, "password": P, "mechanism": M, "binding": "right" | "wrong" | "none"}
and prints {"code": N, "text": TEXT, "offered": TEXT} of the last reply.
"""
import base64, json, subprocess, sys, threading

q = json.load(sys.stdin)
PIPE = subprocess.PIPE


def start(*command):
    process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
    # Whatever hangs ends, and with it whoever reads from it.
    timer = threading.Timer(30, process.kill)
    timer.daemon = True
    timer.start()
    return process


def line_of(process, wanted):
    """The next line that is wanted."""
    for line in process.stdout:
        if wanted(line):
            return line.strip()
    print(json.dumps(dict(code=0, text='the end of %s' % process.args[0], offered='')))
    sys.exit()


tls = start('openssl', 's_client', '-connect', '127.0.0.1:%d' % q['port'], '-nocommands', '-crlf', '-tls1_3',
            '-keymatexport', 'EXPORTER-Channel-Binding', '-keymatexportlen', '32')
exported = line_of(tls, lambda line: 'Keying material: ' in line).split()[-1]
is_last = lambda line: line[:3].isdigit() and line[3:4] == ' '
line_of(tls, is_last)
tls.stdin.write('EHLO c.test\n')
offered = []
line_of(tls, lambda line: offered.append(line) or is_last(line))

sasl = start('stdbuf', '-oL', 'gsasl', '--client', '--no-starttls', '--quiet', '-m', q['mechanism'], '-a', q['user'],
             '-p', q['password'], *(['--no-cb'] if q['binding'] == 'none' else []))
if q['binding'] != 'none':
    binding = bytes.fromhex(exported)
    if q['binding'] != 'right':
        binding = bytes([binding[0] ^ 1]) + binding[1:]
    sasl.stdin.write(base64.b64encode(binding).decode() + '\n')
# A prompt may stand before it on its line; the response to a server that has proved itself is empty.
step = lambda: (line_of(sasl, lambda line: line.strip() != q['mechanism']).split() or [''])[-1]

tls.stdin.write('AUTH %s %s\n' % (q['mechanism'], step()))
reply = line_of(tls, is_last)
while reply.startswith('334 '):
    sasl.stdin.write(reply[4:] + '\n')
    tls.stdin.write(step() + '\n')
    reply = line_of(tls, is_last)
tls.kill()
sasl.kill()
auth = [line[9:].strip() for line in offered if line[4:9] == 'AUTH ']
print(json.dumps(dict(code=int(reply[:3]), text=reply[4:], offered=auth[0] if auth else '')))

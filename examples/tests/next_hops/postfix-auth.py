"""The login of the user `me` with the password `secret`, as Postfix asks Dovecot for it.

Usage: python3 postfix-auth.py SOCKET
"""

import base64
import os
import socketserver
import sys

HELLO = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"


class Login(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(HELLO.encode())
        for line in self.rfile:
            word, *fields = line.decode().rstrip("\n").split("\t")
            if word != "AUTH":
                continue
            response = next((field[5:] for field in fields if field.startswith("resp=")), "")
            is_me = base64.b64decode(response).split(b"\0")[1:] == [b"me", b"secret"]
            answer = f"OK\t{fields[0]}\tuser=me\n" if is_me else f"FAIL\t{fields[0]}\tuser=me\n"
            self.wfile.write(answer.encode())


with socketserver.ThreadingUnixStreamServer(sys.argv[1], Login) as server:
    os.chmod(sys.argv[1], 0o666)
    server.serve_forever()

"""A next hop of aiosmtpd: keeps the messages for the user `me`, who logs in with `secret`.

Usage: python3 aiosmtpd_server.py FOLDER PORT
The folder has cert.pem and key.pem. Messages go to `mail/new` in it.
"""

import asyncio
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

FOLDER, PORT = sys.argv[1], int(sys.argv[2])


class Keep:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone@"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        Keep.count += 1
        name = str(Keep.count)
        with open(f"{FOLDER}/mail/tmp/{name}", "wb") as file:
            file.write(envelope.original_content)
        os.rename(f"{FOLDER}/mail/tmp/{name}", f"{FOLDER}/mail/new/{name}")
        return "250 2.0.0 Kept"


def authenticate(server, session, envelope, mechanism, login):
    is_me = (login.login, login.password) == (b"me", b"secret")
    return AuthResult(success=is_me, handled=False)


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{FOLDER}/cert.pem", f"{FOLDER}/key.pem")

    def conversation():
        return SMTP(
            Keep(),
            hostname="aiosmtpd.test",
            enable_SMTPUTF8=True,
            tls_context=tls,
            require_starttls=True,
            authenticator=authenticate,
            auth_required=True,
        )

    server = await asyncio.get_running_loop().create_server(conversation, "127.0.0.1", PORT)
    await server.serve_forever()


asyncio.run(main())

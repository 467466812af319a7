"""A mail server on a free port of loopback. Its first line is the port; then, as JSON, each letter that came and each login.

With a number it puts off that many letters first, as a server does whose disk is full. It speaks TLS from the beginning (`tls`), after
STARTTLS and not without (`starttls`), or never (`plain`), and wants the login that it is given.
"""

import argparse
import email
import email.policy
import json
import socket
import ssl
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


def say(what):
    print(json.dumps(what), flush=True)


class Desk:
    def __init__(self, refusals):
        self.refusals = refusals

    async def handle_DATA(self, server, session, envelope):
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        taken = self.refusals == 0
        say({
            "taken": taken,
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "user": session.auth_data,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "id": letter["Message-ID"],
            "subject": letter["Subject"],
            "text": letter.get_content(),
        })
        if not taken:
            self.refusals -= 1
            return "452 insufficient system storage"
        return "250 taken"


class Loopback(Controller):
    """One that says which port it was given."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        if not self.ssl_context:
            return super()._trigger_server()
        # The usual look whether it answers cannot speak TLS to it.
        look = ssl._create_unverified_context()
        with socket.create_connection(("127.0.0.1", self.port)) as plain, look.wrap_socket(plain) as wrapped:
            wrapped.recv(1024)


parser = argparse.ArgumentParser()
parser.add_argument("refusals", type=int)
parser.add_argument("--speaks", choices=["plain", "starttls", "tls"], default="plain")
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--login", nargs=2, metavar=("USER", "PASSWORD"))
asked = parser.parse_args()

options = {}
if asked.speaks != "plain":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(asked.cert, asked.key)
    options = {"ssl_context": context} if asked.speaks == "tls" else {"tls_context": context, "require_starttls": True}
if asked.login:
    def judge(server, session, envelope, mechanism, given):
        good = [given.login.decode(), given.password.decode()] == asked.login
        say({"login": given.login.decode(), "good": good})
        return AuthResult(success=good, handled=False, auth_data=given.login.decode())

    options |= {"authenticator": judge, "auth_required": True, "auth_require_tls": asked.speaks == "starttls"}

controller = Loopback(Desk(asked.refusals), hostname="127.0.0.1", port=0, **options)
controller.start()
print(controller.port, flush=True)
threading.Event().wait()

"""A mail server on a free port of loopback. Its first line is the port; then each letter it took, as JSON.

With a number it puts off that many letters first, as a server does whose disk is full.
"""

import email
import email.policy
import json
import sys
import threading

from aiosmtpd.controller import Controller


class Desk:
    def __init__(self, refusals):
        self.refusals = refusals

    async def handle_DATA(self, server, session, envelope):
        letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
        taken = self.refusals == 0
        print(json.dumps({
            "taken": taken,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "id": letter["Message-ID"],
            "subject": letter["Subject"],
            "text": letter.get_content(),
        }), flush=True)
        if not taken:
            self.refusals -= 1
            return "452 insufficient system storage"
        return "250 taken"


class Loopback(Controller):
    """One that says which port it was given."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


controller = Loopback(Desk(int(sys.argv[1])), hostname="127.0.0.1", port=0)
controller.start()
print(controller.port, flush=True)
threading.Event().wait()

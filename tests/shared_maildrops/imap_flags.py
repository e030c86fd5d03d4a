"""An IMAP client that sets and removes flags of the messages in an inbox until its standard input ends.

usage: imap_flags.py COMMAND

COMMAND runs an IMAP server on its standard input and output for a user who is already logged in. The client prints a line
when it has started.
"""

import imaplib
import random
import select
import signal
import sys

# In seconds. The client ends by itself if it cannot start, or if the test was killed.
PATIENCE = 30
LIFETIME = 3600

FLAGS = [r"\Seen", r"\Answered", r"\Flagged", r"\Draft"]


def is_over():
    return select.select([sys.stdin], [], [], 0)[0]


def connected():
    client = imaplib.IMAP4_stream(sys.argv[1])
    client.select("INBOX")
    return client


def change_flags(client):
    while not is_over():
        change = random.choice("+-") + "FLAGS.SILENT"
        client.uid("STORE", "1:*", change, f"({random.choice(FLAGS)})")
        client.noop()  # lets the server report messages that were delivered or removed


signal.alarm(PATIENCE)
client = connected()
signal.alarm(LIFETIME)
print("ready", flush=True)
while not is_over():
    try:
        change_flags(client)
    except imaplib.IMAP4.abort:
        # Dovecot ends the session if another program removes a message in a way that Dovecot does not expect.
        client = connected()

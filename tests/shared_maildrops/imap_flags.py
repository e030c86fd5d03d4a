"""An IMAP client that sets and removes flags of an inbox's messages all the time, until its standard input ends.

usage: imap_flags.py COMMAND

COMMAND runs an IMAP server on its standard input and output for a user who is logged in already. Prints a line when it
has begun.
"""

import imaplib
import random
import select
import signal
import sys

# In seconds: the client goes away also if it cannot begin, or if the test is killed.
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
        client.noop()  # what has been delivered and removed meanwhile


signal.alarm(PATIENCE)
client = connected()
signal.alarm(LIFETIME)
print("ready", flush=True)
while not is_over():
    try:
        change_flags(client)
    except imaplib.IMAP4.abort:
        # Dovecot ends a session that a message it has just seen went away from in a way that it did not expect.
        client = connected()

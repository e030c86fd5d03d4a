"""Fetches a maildrop with Python's poplib: fetch.py HOST PORT USER PASSWORD DIRECTORY keep|delete

Each message becomes a file in DIRECTORY. The script checks that STAT, LIST, UIDL and TOP agree with RETR.
"""

import pathlib
import poplib
import sys

# poplib itself refuses lines of more than 2048 octets. Programs raise this limit in the same way.
poplib._MAXLINE = 1 << 30


def octets(lines):
    return b"".join(line + b"\r\n" for line in lines)


def top(message, lines):
    header, separator, body = message.partition(b"\r\n\r\n")
    return header + separator + b"".join(body.splitlines(keepends=True)[:lines])


host, port, user, password, directory, then = sys.argv[1:]
server = poplib.POP3(host, int(port), timeout=60)
assert {"TOP", "UIDL", "PIPELINING"} <= server.capa().keys(), server.capa()
server.user(user)
try:
    server.pass_(password)
except poplib.error_proto as error:
    sys.exit(f"login refused: {error}")

count, total = server.stat()
sizes = [int(line.split()[1]) for line in server.list()[1]]
unique_ids = [line.split()[1] for line in server.uidl()[1]]
assert (count, total) == (len(sizes), sum(sizes)), (count, total, sizes)
assert len(set(unique_ids)) == count, unique_ids

for number in range(1, count + 1):
    message = octets(server.retr(number)[1])
    assert len(message) == sizes[number - 1], (number, len(message), sizes)
    # bytes.splitlines() takes a lone CR for a line end, so messages with lone CRs are left out.
    if b"\r\n\r\n" in message and message.count(b"\r") == message.count(b"\r\n"):
        assert octets(server.top(number, 2)[1]) == top(message, 2), number
    pathlib.Path(directory, f"{number:03}").write_bytes(message)
    if then == "delete":
        server.dele(number)
server.quit()

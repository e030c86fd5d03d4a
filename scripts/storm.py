"""Opens many POP3 connections at once: storm.py HOST PORT COUNT PASSWORD

All connects are under way before anything is read. Connection n logs in as u<n>, retrieves message 1 and quits, one
command at a time. Says how many were served and how long the first and the last took; exits 1 unless all were.
"""

import selectors
import socket
import sys
import time

PATIENCE = 120  # seconds without anything from any connection


class Session:
    """One connection's dialogue. A command goes out when the reply to the one before is complete."""

    def __init__(self, address, commands):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(address)
        self.commands = iter(commands)
        self.multiline = False
        self.received = bytearray()

    def advance(self):
        """Reads what there is. True when the server has said goodbye, an error when it said anything but +OK."""
        octets = self.socket.recv(65536)
        if not octets:
            raise ConnectionError(f"closed after {bytes(self.received)!r}")
        self.received += octets
        if not self.received.startswith(b"+OK"[: len(self.received)]):
            raise ConnectionError(f"refused: {bytes(self.received)!r}")
        if not self.received.endswith(b"\r\n.\r\n" if self.multiline else b"\r\n"):
            return False
        self.received.clear()
        command = next(self.commands, None)
        if command is None:
            return True
        self.multiline = command.startswith("RETR")
        self.socket.sendall(command.encode() + b"\r\n")
        return False


def main():
    host, port, count, password = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    selector = selectors.DefaultSelector()
    start = time.monotonic()
    for number in range(1, count + 1):
        session = Session((host, port), [f"USER u{number}", f"PASS {password}", "RETR 1", "QUIT"])
        selector.register(session.socket, selectors.EVENT_READ, session)
    connected = time.monotonic() - start

    served, errors = [], []
    while selector.get_map():
        ready = selector.select(PATIENCE)
        if not ready:
            errors.append(f"{len(selector.get_map())} connections got nothing for {PATIENCE} s")
            break
        for key, _ in ready:
            try:
                if not key.data.advance():
                    continue
                served.append(time.monotonic() - start)
            except OSError as error:
                errors.append(str(error))
            selector.unregister(key.fileobj)
            key.fileobj.close()

    print(f"{len(served)} of {count} connections served; connects begun in {connected:.2f} s,", end=" ")
    print(f"first served after {min(served):.2f} s, last after {max(served):.2f} s" if served else "none served")
    for error in errors[:5]:
        print(f"error: {error}")
    return 1 if errors else 0


sys.exit(main())

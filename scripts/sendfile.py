"""A POP3 server of one message that does no work: sendfile.py FILE

FILE has to be in wire form: CRLF at each line's end, no line that begins with a dot unless it is stuffed. Every RETR
is a sendfile(2) of it. What a client measures here is what the machine's loopback and the client itself allow. Serves
on a free port of 127.0.0.1, which it prints, until it is ended.
"""

import os
import socket
import socketserver
import sys

CHUNK = 1 << 30  # sendfile(2) sends at most 2 GiB at once


class Session(socketserver.StreamRequestHandler):
    """Says +OK to everything; knows LIST, UIDL, STAT, RETR and QUIT."""

    def handle(self):
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.say("+OK")
        for line in self.rfile:
            command = line.split()[0].upper() if line.split() else b""
            if command == b"RETR":
                self.retrieve()
            elif command in (b"LIST", b"UIDL") and len(line.split()) == 1:
                self.say(f"+OK\r\n1 {self.server.octets}\r\n.")
            elif command in (b"STAT", b"LIST", b"UIDL"):
                self.say(f"+OK 1 {self.server.octets}")
            else:
                self.say("+OK")
            if command == b"QUIT":
                return

    def say(self, text):
        self.connection.sendall(text.encode() + b"\r\n")

    def retrieve(self):
        self.say("+OK")
        offset = 0
        while offset < self.server.octets:
            offset += os.sendfile(self.connection.fileno(), self.server.file.fileno(), offset, CHUNK)
        self.connection.sendall(b".\r\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    with open(sys.argv[1], "rb") as file, Server(("127.0.0.1", 0), Session) as server:
        server.file = file
        server.octets = os.fstat(file.fileno()).st_size
        print(server.server_address[1], flush=True)
        server.serve_forever()


main()

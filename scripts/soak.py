"""Two kinds of clients for scripts/soak: soak.py PORT MAIL SECONDS

Rude clients log in as the users vN. They vanish, read slowly or send half a command, with messages marked as deleted but
without QUIT. Keepers log in as the users kN. Each delivers mail, retrieves it and deletes some with QUIT, and so knows
what must be left. At the end the script prints what was done. It fails if a message was lost, has reappeared or differs
from the one that was delivered.
"""

import os
import random
import socket
import struct
import sys
import threading
import time

VANISHING = 48
KEEPERS = 16
PASSWORD = "pass"
PATIENCE = 120  # seconds: while all connection slots are taken, a client waits for its turn
KEPT = 40  # what a keeper's maildrop is filled up to

counts = {"rude sessions": 0, "kept sessions": 0, "deliveries": 0, "deletions": 0}
failures = []
lock = threading.Lock()


def count(what, by=1):
    with lock:
        counts[what] += by


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.lines = self.socket.makefile("rb")
        self.status()

    def status(self):
        line = self.lines.readline()
        if not line.startswith(b"+OK"):
            raise RuntimeError(f"expected +OK, got {line!r}")
        return line

    def call(self, command):
        self.socket.sendall(command.encode() + b"\r\n")
        return self.status()

    def multiline(self, command):
        self.call(command)
        octets = b""
        while (line := self.lines.readline()) != b".\r\n":
            if not line:
                raise RuntimeError(f"the connection ended in the answer to {command}")
            octets += line.removeprefix(b".")
        return octets

    def log_in(self, name):
        self.call(f"USER {name}")
        self.call(f"PASS {PASSWORD}")

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.lines.close()
        self.socket.close()


def half_a_login(client, name):
    client.socket.sendall(f"USER {name}\r\nPA".encode())
    time.sleep(random.random())


def half_a_quit(client, name):
    client.log_in(name)
    client.call("DELE 1")
    client.socket.sendall(b"QUI")


def vanishes_after_login(client, name):
    client.log_in(name)
    client.call("DELE 2")


def vanishes_in_a_message(client, name):
    client.log_in(name)
    client.call("DELE 1")
    client.socket.sendall(b"RETR 2\r\nRETR 3\r\n")
    client.socket.recv(random.randrange(1, 5000))


def reads_slowly(client, name):
    client.log_in(name)
    client.socket.sendall(b"RETR 1\r\n" * 50)
    for _ in range(20):
        client.socket.recv(1000)
        time.sleep(0.1)


def says_nonsense(client, name):
    client.socket.sendall(os.urandom(2000) + b"\r\n" + b"USER " + b"x" * 600 + b"\r\n")
    client.socket.recv(100)


RUDE = [half_a_login, half_a_quit, vanishes_after_login, vanishes_in_a_message, reads_slowly, says_nonsense]


def be_rude(port, name, end):
    while time.monotonic() < end:
        client = Client(port)
        try:
            random.choice(RUDE)(client, name)
        finally:
            random.choice([client.reset, client.close])()
        count("rude sessions")


class Keeper:
    def __init__(self, directory):
        self.directory = directory
        self.delivered = 0
        self.expected = {}
        for folder in ("tmp", "new", "cur"):
            os.makedirs(os.path.join(directory, folder), exist_ok=True)

    def deliver(self):
        while len(self.expected) < KEPT:
            self.delivered += 1
            name = f"{1_000_000_000 + self.delivered}.M.h"
            text = f"Subject: {self.delivered}\r\n\r\n" + "text\r\n" * random.randrange(2000)
            temporary = os.path.join(self.directory, "tmp", name)
            with open(temporary, "w", newline="") as file:
                file.write(text)
            os.rename(temporary, os.path.join(self.directory, "new", name))
            self.expected[name] = text.encode()
            count("deliveries")

    def session(self, port, name):
        client = Client(port)
        client.log_in(name)
        listed = [line.split()[1].decode() for line in client.multiline("UIDL").splitlines()]
        if listed != sorted(self.expected):
            raise RuntimeError(f"{name}: listed {listed}, expected {sorted(self.expected)}")
        for number in random.sample(range(len(listed)), 5):
            if client.multiline(f"RETR {number + 1}") != self.expected[listed[number]]:
                raise RuntimeError(f"{name}: {listed[number]} is not what was delivered")
        marked = random.sample(range(len(listed)), random.randrange(len(listed)))
        for number in marked:
            client.call(f"DELE {number + 1}")
        if random.random() < 0.8:
            client.call("QUIT")
            for number in marked:
                del self.expected[listed[number]]
            count("deletions", len(marked))
        client.close()
        count("kept sessions")

    def check(self):
        there = {}
        for folder in ("new", "cur"):
            for name in os.listdir(os.path.join(self.directory, folder)):
                with open(os.path.join(self.directory, folder, name), "rb") as file:
                    there[name] = file.read()
        if there != self.expected:
            raise RuntimeError(f"{self.directory}: there is not what was delivered and not deleted")


def keep(port, directory, name, end):
    keeper = Keeper(directory)
    while time.monotonic() < end:
        keeper.deliver()
        keeper.session(port, name)
        keeper.check()


def guarded(work, *arguments):
    try:
        work(*arguments)
    except (OSError, RuntimeError) as error:
        failures.append(f"{arguments[1:3]}: {error!r}")


def main():
    port, mail, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=guarded, args=(be_rude, port, f"v{number}", end)) for number in range(1, VANISHING + 1)
    ] + [
        threading.Thread(target=guarded, args=(keep, port, os.path.join(mail, f"k{number}"), f"k{number}", end))
        for number in range(1, KEEPERS + 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


main()

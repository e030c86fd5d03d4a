#!/usr/bin/env python3
"""The mail and the clients of scripts/cluster.

    cluster.py fill MAIL MESSAGES                the maildrops
    cluster.py accounts                          prints the SQL that makes the table of accounts
    cluster.py use ADDRESS JOURNAL               runs sessions until SIGTERM comes, and writes down what became of each
    cluster.py hold HOST OTHER FILE JOURNAL      keeps a session on HOST, makes FILE, and writes down when HOST's end or
                                                 silence has let the same user log in on OTHER
    cluster.py login HOST USER PASSWORD          prints the reply to the password
    cluster.py state HOST                        what HAProxy takes the host for
    cluster.py cpu PROCESS                       prints the CPU time of the programs that this process and its descendants
                                                 run, in microseconds, as JSON
    cluster.py check ADDRESS MESSAGES JOURNAL POPBENCH
                                                 prints what the sessions met; fails if a message is lost or wrong, or
                                                 if a password was called wrong
"""

import collections
import concurrent.futures
import hashlib
import json
import os
import poplib
import random
import signal
import socket
import ssl
import sys
import threading
import time

USERS = [f"u{number}" for number in range(1, 25)]
# popbench's, the one of "hold", and two that no host knows before the database fails.
OTHERS = [f"b{number}" for number in range(1, 9)] + ["held", "late", "later"]
CLIENTS = 12
# After this a client gives up, as mail programs do.
PATIENCE = 30
TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


def message(user, number):
    """The octets of a message, which depend on the user and the number alone."""
    chance = random.Random(f"{user} {number}")
    lines = [f"Message-ID: <{user}.{number}@cluster>", ""]
    for _ in range(chance.randrange(2, 200)):
        lines.append("." * chance.randrange(3) + hashlib.sha256(chance.randbytes(8)).hexdigest())
    return "\r\n".join(lines).encode() + b"\r\n"


def number_of(user, octets):
    """The number of the user's message that has these octets; None if none has them."""
    number = octets.split(b"\r\n", 1)[0].decode("latin-1").removeprefix(f"Message-ID: <{user}.")
    number = number.removesuffix("@cluster>")
    return int(number) if number.isdigit() and octets == message(user, int(number)) else None


def fill(mail, messages):
    os.umask(0o077)

    def maildrop(user):
        for folder in "cur", "new", "tmp":
            os.makedirs(f"{mail}/{user}/{folder}")
        for number in range(int(messages)):
            with open(f"{mail}/{user}/new/{1700000000 + number}.{user}.cluster", "wb") as file:
                file.write(message(user, number).replace(b"\r\n", b"\n"))

    # A shared file system takes its time for each file, but not for one after the other.
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        list(threads.map(maildrop, USERS + OTHERS))


def accounts():
    print("CREATE TABLE accounts (name text PRIMARY KEY, password text NOT NULL);")
    for user in USERS + OTHERS:
        print(f"INSERT INTO accounts VALUES ('{user}', '{{PLAIN}}pass');")


class Wrong(Exception):
    """Something that no failure may lead to."""


class Session:
    """A POP3 session. `step` is what the client waits for, also after a failure."""

    def __init__(self, address, user):
        self.address, self.user, self.pop, self.step = address, user, None, "connect"

    def log_in(self, password="pass"):
        self.pop = poplib.POP3(self.address, 110, timeout=PATIENCE)
        self.pop.stls(TLS)
        self.step = "login"
        self.pop.user(self.user)
        self.reply = self.pop.pass_(password)
        self.step = "session"
        return self

    def count(self):
        return len(self.pop.list()[1])

    def retrieve(self, number):
        octets = b"".join(line + b"\r\n" for line in self.pop.retr(number)[1])
        found = number_of(self.user, octets)
        if found is None:
            raise Wrong(f"{self.user}: octets of no message: {octets[:200]!r}")
        return found

    def close(self):
        if self.pop:
            self.pop.close()


def outcome(error):
    """What became of a session with this error."""
    if isinstance(error, Wrong):
        return f"wrong: {error}"
    if isinstance(error, poplib.error_proto):
        # poplib makes an error of this kind also of a closed connection.
        text = error.args[0].decode("latin-1") if isinstance(error.args[0], bytes) else str(error.args[0])
        return "closed" if "EOF" in text else f"refused: {text}"
    return "no answer" if isinstance(error, TimeoutError) else "closed"


class Clients:
    def __init__(self, address, journal):
        self.address, self.lock, self.over = address, threading.Lock(), threading.Event()
        self.journal = open(journal, "a", buffering=1)
        # For each user, when the latest client that was let in had asked for it.
        self.asked = collections.defaultdict(float)

    def session(self, chance, user):
        session, deleted, quitting, ended = Session(self.address, user), [], False, "quit"
        try:
            asked = time.monotonic()
            session.log_in()
            began = time.monotonic()
            with self.lock:
                self.asked[user] = max(self.asked[user], asked)
            count = session.count()
            for number in chance.sample(range(1, count + 1), min(count, 3)):
                found = session.retrieve(number)
                if chance.random() < 0.3:
                    session.pop.dele(number)
                    deleted.append(found)
                time.sleep(chance.random() * 0.2)
            with self.lock:
                alone = self.asked[user] < began
            quitting = True
            session.pop.quit()
            if deleted and not alone:
                raise Wrong(f"{user}: messages were removed although a later session had begun")
        except (OSError, EOFError, poplib.error_proto, Wrong) as error:
            ended = outcome(error)
        finally:
            session.close()
        with self.lock:
            entry = {"at": time.time(), "user": user, "ended": ended, "step": session.step}
            self.journal.write(json.dumps({**entry, "deleted": deleted, "quitting": quitting}) + "\n")
        return ended == "quit"

    def run(self, number):
        chance = random.Random(number)
        while not self.over.is_set():
            if not self.session(chance, chance.choice(USERS)):
                time.sleep(0.5)
            time.sleep(chance.random() * 0.3)


def use(address, journal):
    clients = Clients(address, journal)
    signal.signal(signal.SIGTERM, lambda *_: clients.over.set())
    threads = [threading.Thread(target=clients.run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def log_in_when_free(address, user, password="pass"):
    """Logs in, again and again while the session before this one has not ended yet."""
    end = time.monotonic() + PATIENCE
    while True:
        session = Session(address, user)
        try:
            return session.log_in(password)
        except poplib.error_proto as error:
            session.close()
            if "[IN-USE]" not in str(error) or time.monotonic() > end:
                raise


def hold(host, other, file, journal):
    _first = log_in_when_free(host, "held")
    open(file, "w").close()
    # The first session is on, so this begins to succeed when its host has lost the lock.
    end = time.monotonic() + 60
    while time.monotonic() < end:
        session = Session(other, "held")
        try:
            session.log_in().pop.quit()
            break
        except (OSError, EOFError, poplib.error_proto):
            session.close()
            time.sleep(0.05)
    else:
        sys.exit(f"hold: the lock of {host} is not free after a minute")
    with open(journal, "a") as journal:
        journal.write(json.dumps({"free": host, "at": time.time()}) + "\n")


def login(host, user, password):
    try:
        session = log_in_when_free(host, user, password)
        reply = session.reply
        session.pop.quit()
        session.close()
    except poplib.error_proto as error:
        reply = error.args[0]
    print(reply.decode() if isinstance(reply, bytes) else reply)


def state(host):
    it = socket.socket(socket.AF_UNIX)
    it.connect("/run/haproxy/admin.sock")
    it.sendall(b"show stat\n")
    rows = [line.split(",") for line in it.makefile()]
    print(next(row[17] for row in rows if row[:2] == ["pop3", host]))


def cpu(ancestor):
    parents, times = {}, {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/stat") as file:
                name, rest = file.read().split(" (", 1)[1].rsplit(") ", 1)
        except OSError:
            continue
        fields = rest.split()
        parents[process] = fields[1]
        # With that of children that have ended.
        times[process] = name, sum(map(int, fields[11:15]))
    total = collections.Counter()
    for process, (name, ticks) in times.items():
        while process not in (ancestor, "0"):
            process = parents.get(process, "0")
        if process == ancestor:
            total[name] += ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
    print(json.dumps(total))


def remaining(address, messages, journal):
    """What is wrong with the maildrops, each of which had these messages before the sessions of the journal."""
    removed, perhaps = collections.defaultdict(set), collections.defaultdict(set)
    for it in journal:
        if it.get("quitting"):
            (removed if it["ended"] == "quit" else perhaps)[it["user"]].update(it["deleted"])
    for user in USERS:
        session = log_in_when_free(address, user)
        there = collections.Counter(session.retrieve(number + 1) for number in range(session.count()))
        session.pop.quit()
        yield from (f"{user}: message {number} is there {there[number]} times" for number in there if there[number] > 1)
        yield from (f"{user}: message {number} was removed and is there" for number in removed[user] & set(there))
        gone = set(range(messages)) - set(there) - removed[user] - perhaps[user]
        yield from (f"{user}: message {number} is lost" for number in gone)
    print(f"messages: {sum(map(len, removed.values()))} removed by clients, the others are there")


def table(journal):
    """Prints what the sessions of each step met."""
    print(f"{'':34}{'served':>8}{'turned away':>13}{'ended':>8}{'no answer':>11}{'avoided':>10}{'locks free':>12}")
    steps = [it for it in journal if "step" in it and "user" not in it]
    for step, following in zip(steps, steps[1:] + [{"at": float("inf")}]):
        during = [it for it in journal if step["at"] <= it["at"] < following["at"]]
        sessions = [it for it in during if "user" in it]
        counts = collections.Counter(
            "served" if it["ended"] == "quit"
            else "no answer" if it["ended"] == "no answer"
            else "ended" if it["step"] == "session"
            else "turned away"
            for it in sessions
        )
        after = {key: f"{it['at'] - step['at']:.1f} s" for it in during for key in ("avoided", "free") if key in it}
        print(f"{step['step']:34}{counts['served']:8}{counts['turned away']:13}{counts['ended']:8}"
              f"{counts['no answer']:11}{after.get('avoided', ''):>10}{after.get('free', ''):>12}")


def popbench_table(file):
    """Prints what popbench has counted. Returns what is wrong."""
    decoder, text, reports = json.JSONDecoder(), open(file).read().strip(), []
    while text:
        report, end = decoder.raw_decode(text)
        reports.append(report)
        text = text[end:].strip()
    errors = collections.Counter()
    for report in reports:
        errors.update({error["kind"]: error["count"] for error in report["errors"]})
    print(f"popbench: {sum(report['sessions'] for report in reports)} sessions; "
          + ", ".join(f"{count} {kind}" for kind, count in errors.most_common()))
    never = "octet mismatch", "protocol violation", "-ERR [AUTH]"
    return [f"popbench: {errors[kind]} {kind}" for kind in never if errors[kind]]


def check(address, messages, journal, popbench):
    with open(journal) as lines:
        journal = sorted(map(json.loads, lines), key=lambda it: it["at"])
    table(journal)
    wrong = [it["ended"] for it in journal if it.get("ended", "").startswith("wrong")]
    # A client that cannot be let in at present is told so; only then does it not ask its user for another password.
    allowed = "[SYS/TEMP]", "[IN-USE]"
    wrong += [f"{it['user']}: login {it['ended']}" for it in journal if it.get("step") == "login" and "user" in it
              and it["ended"].startswith("refused") and not any(code in it["ended"] for code in allowed)]
    wrong += popbench_table(popbench)
    wrong += remaining(address, int(messages), journal)
    for what in wrong:
        print(what)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    commands = fill, accounts, use, hold, login, state, cpu, check
    {command.__name__: command for command in commands}[sys.argv[1]](*sys.argv[2:])

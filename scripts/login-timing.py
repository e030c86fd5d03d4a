"""Compares how long refused logins take: login-timing.py PORT COUNT CLIENTS TITLE

Tries to log in COUNT times as "known" and as "unknown", with a wrong password that is another one each time, in random
order and each time on a new connection. CLIENTS log in at a time. Prints how long the answers to PASS took as a row of a
table. Fails if these times reveal the name better than chance: if the area under the ROC curve differs from 0.5 by more
than 0.05, and by more than four standard errors.
"""

import math
import random
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

NAMES = ("known", "unknown")


def refused_login(port, name):
    """Return how many seconds the answer to PASS took."""
    password = f"{random.getrandbits(64):016x}"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = client.makefile("rb")
        lines.readline()
        client.sendall(f"USER {name}\r\n".encode())
        lines.readline()
        begun = time.perf_counter()
        client.sendall(f"PASS {password}\r\n".encode())
        answer = lines.readline()
        took = time.perf_counter() - begun
    if not answer.startswith(b"-ERR [AUTH]"):
        sys.exit(f"login-timing.py: expected -ERR [AUTH], got {answer!r}")
    return took


def area_under_curve(first, second):
    """Return the probability that one of the second takes longer than one of the first."""
    ranked = sorted([(took, 0) for took in first] + [(took, 1) for took in second])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 1)
    return (ranks - len(second) * (len(second) + 1) / 2) / (len(first) * len(second))


def cell(times):
    """Return the median, with the tenth and the ninetieth percentile in brackets."""
    times = sorted(times)
    low, median, high = (times[min(len(times) * percent // 100, len(times) - 1)] * 1e3 for percent in (10, 50, 90))
    return f"{median:.2f} ms ({low:.2f}–{high:.2f})"


def main():
    port, count, clients, title = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    order = list(NAMES) * count
    random.shuffle(order)
    warm_up = min(20, count // 5)
    for name in NAMES * warm_up if clients == 1 else NAMES:
        refused_login(port, name)  # the first logins take longer than later ones
    with ThreadPoolExecutor(clients) as pool:
        took = list(pool.map(lambda name: refused_login(port, name), order))
    known, unknown = ([time for time, name in zip(took, order) if name == wanted] for wanted in NAMES)
    area = area_under_curve(known, unknown)
    margin = max(0.05, 4 * math.sqrt((2 * count + 1) / (12 * count * count)))
    differs = abs(area - 0.5) > margin
    verdict = "yes" if differs else "no"
    print(f"| {title} | 2 × {count} | {cell(known)} | {cell(unknown)} | {area:.3f} (0.5 ± {margin:.3f}) | {verdict} |", flush=True)
    sys.exit(1 if differs else 0)


main()

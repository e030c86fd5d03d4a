"""Compares how long refused logins take: login-timing.py PORT COUNT NAME NAME

Tries to log in COUNT times as each of the two names, with a wrong password, in random order and each time on a new
connection. Prints how long the answers to PASS took. Fails if these times reveal the name better than chance: if the area
under the ROC curve differs from 0.5 by more than 0.05, and by more than four standard errors.
"""

import math
import random
import socket
import sys
import time


def refused_login(port, name):
    """Return how many seconds the answer to PASS took."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = client.makefile("rb")
        lines.readline()
        client.sendall(f"USER {name}\r\n".encode())
        lines.readline()
        begun = time.perf_counter()
        client.sendall(b"PASS wrong password\r\n")
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


def main():
    port, count, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:5]
    took = {name: [] for name in names}
    order = names * count
    random.shuffle(order)
    for name in names * 20:
        refused_login(port, name)  # the first logins take longer than later ones
    for name in order:
        took[name].append(refused_login(port, name))

    percentiles = (1, 10, 25, 50, 75, 90, 99)
    print("us".ljust(12) + "".join(f"p{percent}".rjust(10) for percent in percentiles))
    for name, times in took.items():
        times.sort()
        cells = (times[min(len(times) * percent // 100, len(times) - 1)] * 1e6 for percent in percentiles)
        print(name.ljust(12) + "".join(f"{cell:.1f}".rjust(10) for cell in cells))
    area = area_under_curve(*took.values())
    margin = max(0.05, 4 * math.sqrt((2 * count + 1) / (12 * count * count)))
    differs = abs(area - 0.5) > margin
    print(f"area under the curve: {area:.3f}, within {0.5 - margin:.3f} to {0.5 + margin:.3f}: {'no' if differs else 'yes'}")
    sys.exit(1 if differs else 0)


main()

"""Runs getmail with its wait for delivery programs mended: getmail.py GETMAIL ARGUMENT...

getmail 6.18 forks a delivery and then waits for a signal of its end. One that has ended before that is waited for in
vain, which on a busy machine happens now and then. Everything else is getmail's own.
"""

import os
import runpy
import sys

from getmailcore.baseclasses import ForkingBase


def wait_for_child(_, child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


ForkingBase._prepare_child = lambda _: None
ForkingBase._wait_for_child = wait_for_child
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")

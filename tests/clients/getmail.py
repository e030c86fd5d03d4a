"""Runs getmail with a corrected wait for delivery programs: getmail.py GETMAIL ARGUMENT...

getmail 6.18 forks a delivery program and then waits for the signal of its end. If the program has already ended, getmail
waits forever, which happens now and then on a busy machine. This script changes nothing else.
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

"""Mounts the directory SOURCE at MOUNT by FUSE until it gets a signal. Each stat(2) of a file returns another inode number.
With "unknown", a listing of a directory has the same inode number for all files.

usage: renumbering.py SOURCE MOUNT random|unknown
"""

import itertools
import os
import signal
import sys

from fusepy import FUSE, Operations

# In seconds, longer than any test takes. The mount goes away even if the test was killed.
LIFETIME = 120
ATTRIBUTES = "st_mode st_nlink st_uid st_gid st_size st_blocks".split()
TIMES = "atime mtime ctime".split()


class Renumbering(Operations):
    use_ns = True

    def __init__(self, source, with_numbers):
        self.source = source
        self.with_numbers = with_numbers
        self.numbers = itertools.count(1000)

    def path(self, path):
        return self.source + path

    def getattr(self, path, handle=None):
        stat = os.lstat(self.path(path))
        attributes = {name: getattr(stat, name) for name in ATTRIBUTES}
        attributes.update({f"st_{name}": getattr(stat, f"st_{name}_ns") for name in TIMES})
        # The root of a file system has a fixed inode number.
        attributes["st_ino"] = 1 if path == "/" else next(self.numbers)
        return attributes

    def readdir(self, path, handle):
        for name in [".", "..", *os.listdir(self.path(path))]:
            if self.with_numbers and not name.startswith("."):
                yield name, self.getattr(os.path.join(path, name)), 0
            else:
                yield name

    def open(self, path, flags):
        return os.open(self.path(path), flags)

    def create(self, path, mode, info=None):
        return os.open(self.path(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def write(self, path, data, offset, handle):
        return os.pwrite(handle, data, offset)

    def truncate(self, path, length, handle=None):
        os.truncate(self.path(path), length)

    def release(self, path, handle):
        os.close(handle)

    def chmod(self, path, mode):
        os.chmod(self.path(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self.path(path), uid, gid)

    def rename(self, old, new):
        os.rename(self.path(old), self.path(new))

    def unlink(self, path):
        os.unlink(self.path(path))


source, mount, listing = sys.argv[1:]
signal.alarm(LIFETIME)
operations = Renumbering(source, with_numbers=listing == "random")
FUSE(operations, mount, foreground=True, nothreads=True, use_ino=True, attr_timeout=0, entry_timeout=0)

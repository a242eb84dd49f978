"""`python forbidding.py WHAT,... COMMAND ARG...`: run a command as a container does that forbids Landlock or seccomp.

Landlock's system calls then do not exist, and a filter or another user is not permitted. WHAT may be empty.
"""

import errno
import os
import sys

import pyseccomp as seccomp

LANDLOCK = range(444, 447)  # its three system calls, on every architecture


def main() -> None:
    what, *command = sys.argv[1:]
    program = seccomp.SyscallFilter(seccomp.ALLOW)
    if "landlock" in what:
        for number in LANDLOCK:
            program.add_rule(seccomp.ERRNO(errno.ENOSYS), number)
    if "user" in what:
        program.add_rule(seccomp.ERRNO(errno.EPERM), "setresuid")
    if "seccomp" in what:
        program.add_rule(seccomp.ERRNO(errno.EPERM), "seccomp")
    if what:
        program.load()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

"""The sandbox: what a process gives up before it runs a submission, and what the machine offers for it.

`seccomp_filter` compiles the filter, in the judge: the zygote needs no package that a submission must not import.
`set_apart` and `Policy.prepare` do what can be done once, in the zygote. `Policy.confine` is called in each child,
before a line of the submission is read, and cannot be undone:

* rlimits on memory, CPU, file size, descriptors and processes; no core dumps;
* as root, another user id per worker and no capability but that of reading files, whose owner root may be;
* Landlock: reading the interpreter, the listed packages and the submission; writing its scratch folder; no TCP, no
  abstract sockets and no signals to others, where the kernel knows these;
* seccomp: a list of allowed system calls. The others are answered with an error by the judge, who counts them; so does
  the judge count the files that are created, and lets a limited number be.

Landlock's three system calls are made through ctypes (no released package covers them and networks and scopes), the
seccomp program is compiled by libseccomp through pyseccomp.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

if sys.platform != "win32":  # where `doctor` still has to say what is missing
    import resource

MEMORY = 1 << 30  # bytes of address space beyond what the zygote has
FILE_SIZE = 128 << 10  # bytes of one written file
OPEN_FILES = 128
PROCESSES = 32  # threads of one worker, as root; of the user beyond those that run already, otherwise
FIRST_UID = 60_100  # as root: the worker in seat i runs as user FIRST_UID + i, of which there is none
USERS = 1000  # of all runs on this machine: after them come ids that a system gives out
_SWEEPER = FIRST_UID - 1  # nobody either
_SEAT_NAME = "\0hw3-grading-seat-"  # of a socket without a file

CHANNEL = 3  # the descriptor on which a child speaks with the judge


class SandboxError(Exception):
    """A part of the sandbox could not be put up."""


# -- Landlock --------------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_PATH_BENEATH = 1

# Access to files, by the bit's number in the kernel's interface, and the first version that knows it.
_FS_RIGHTS = {
    **{name: (bit, 1) for bit, name in enumerate(("execute", "write_file", "read_file", "read_dir"))},
    **{name: (bit, 1) for bit, name in enumerate(("remove_dir", "remove_file", "make_char", "make_dir"), 4)},
    **{name: (bit, 1) for bit, name in enumerate(("make_reg", "make_sock", "make_fifo", "make_block", "make_sym"), 8)},
    **{"refer": (13, 2), "truncate": (14, 3), "ioctl_dev": (15, 5)},
}
_READ = ("read_file", "read_dir")
_FILE_RIGHTS = ("read_file", "write_file", "truncate", "ioctl_dev", "execute")
_WRITE = (*_READ, "write_file", "remove_file", "make_reg", "truncate")  # files only, so that it stays flat
TRUNCATION = 3  # the first version that covers it
_TCP = (1 << 0) | (1 << 1)  # bind, connect; version 4
_SCOPES = (1 << 0) | (1 << 1)  # abstract sockets, signals; version 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number: int, *args: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def landlock_version() -> int:
    """The version of Landlock's interface; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    except OSError:
        return 0


def _bits(names: tuple[str, ...], version: int) -> int:
    return sum(1 << bit for bit, since in (_FS_RIGHTS[name] for name in names) if since <= version)


def _create_ruleset(version: int, *, scopes: bool) -> int:
    handled = struct.pack(
        "=QQQ", _bits(tuple(_FS_RIGHTS), version), _TCP if version >= 4 else 0, _SCOPES if scopes else 0
    )
    # Old kernels refuse a structure that is longer than theirs.
    size = 24 if scopes else 16 if version >= 4 else 8
    return _syscall(_CREATE_RULESET, handled[:size], ctypes.c_size_t(size), ctypes.c_uint(0))


def has_scopes(version: int) -> bool:
    """Whether sockets and signals can be scoped. Some kernels claim version 6 and cannot."""
    if version < 6:
        return False
    try:
        os.close(_create_ruleset(version, scopes=True))
    except OSError:
        return False
    return True


# -- seccomp ---------------------------------------------------------------------------------------------

# Not mincore, fadvise64, preadv2 and pwritev2: they tell of the page cache, in which workers could leave messages.
_ALLOWED = """
    brk mmap munmap mremap mprotect madvise membarrier
    read readv pread64 preadv write writev pwrite64 pwritev lseek
    close close_range dup stat lstat fstat newfstatat statx access faccessat faccessat2
    readlink readlinkat getdents64 getcwd chdir fchdir umask
    unlink unlinkat rename renameat ftruncate fsync fdatasync
    pipe2 eventfd2 poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage getitimer setitimer alarm
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause
    restart_syscall exit exit_group getpid gettid getppid getuid geteuid getgid getegid getgroups getpgrp getpgid getsid
    getresuid getresgid capget uname sysinfo getcpu getpriority sched_yield sched_getaffinity sched_getparam
    sched_getscheduler sched_get_priority_max sched_get_priority_min arch_prctl set_tid_address set_robust_list
    get_robust_list rseq futex futex_waitv getrandom
"""

# Asked for by libraries on their own, which do without: answered with an error and not counted.
_UNKNOWN = "clone3 memfd_create get_mempolicy set_mempolicy mbind"  # -> "no such system call"
_REFUSED = "mkdir mkdirat sched_setaffinity sched_setscheduler tgkill tkill getxattr lgetxattr"  # -> "not permitted"
_REFUSED += " statfs fstatfs"  # the number of free blocks is a letter box, too
_UNSUPPORTED = "fallocate"  # -> "not supported": it takes space beyond a file's end, which no limit on sizes sees

_CLONE_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000  # VM, FS, FILES, SIGHAND, THREAD: as for any thread
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # duplicate, flags; not locks, which two workers could see, nor signals to others
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_PR_SET_NAME, _PR_GET_NAME, _PR_CAPBSET_READ, _PR_SET_VMA = 15, 16, 23, 0x53564D41


@dataclass(frozen=True)
class Filter:
    """A seccomp program, and the number of the system call that installs it."""

    program: bytes
    call: int


def seccomp_filter(version: int) -> Filter:
    """The filter, compiled. version: Landlock's, which before 3 does not restrict truncation.

    Raises SandboxError where pyseccomp or libseccomp is missing, and where filters are forbidden, as containers may.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, RuntimeError) as error:
        raise SandboxError(f"seccomp: {error} (pip install pyseccomp; libseccomp2 from your distribution)") from error
    try:
        program = seccomp.SyscallFilter(seccomp.NOTIFY)
    except OSError as error:
        raise SandboxError("seccomp: no filter can be put up here (Linux 5.0 or later, and permitted)") from error
    program.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)

    def rule(action: int, name: str, *args: object) -> None:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number >= 0:  # else this architecture has none of that name
            program.add_rule_exactly(action, number, *args)

    def argument(at: int, value: int) -> object:
        return seccomp.Arg(at, seccomp.EQ, value)

    def masked(at: int, mask: int, value: int) -> object:
        return seccomp.Arg(at, seccomp.MASKED_EQ, mask, value)

    for name in _ALLOWED.split():
        rule(seccomp.ALLOW, name)
    # What creates a file gets no rule, so the judge is asked: O_CREAT is the one way to a new inode that is left.
    nameless = os.O_TMPFILE & ~os.O_DIRECTORY  # O_TMPFILE's own bit: a file in no folder; `tempfile` does without
    truncate = os.O_TRUNC if version < TRUNCATION else 0
    for name, at in (("open", 1), ("openat", 2)):
        rule(seccomp.ALLOW, name, masked(at, os.O_CREAT | nameless | truncate, 0))
        rule(seccomp.ERRNO(errno.EOPNOTSUPP), name, masked(at, nameless, nameless))
        if truncate:  # no flags match two rules, so their order does not matter
            rule(seccomp.ERRNO(errno.EPERM), name, masked(at, nameless | truncate, truncate))
    rule(seccomp.ALLOW, "renameat2", argument(4, 0))  # its flag RENAME_WHITEOUT makes an inode at each call
    for name in _UNSUPPORTED.split():
        rule(seccomp.ERRNO(errno.EOPNOTSUPP), name)
    for name in _UNKNOWN.split():
        rule(seccomp.ERRNO(errno.ENOSYS), name)
    for name in _REFUSED.split():
        rule(seccomp.ERRNO(errno.EPERM), name)
    rule(seccomp.ALLOW, "clone", masked(0, _CLONE_THREAD, _CLONE_THREAD))
    rule(seccomp.ALLOW, "sendmsg", argument(0, CHANNEL), argument(2, 0))  # how the judge gets the listener
    rule(seccomp.ALLOW, "prlimit64", argument(0, 0))
    for command in _FCNTLS:
        rule(seccomp.ALLOW, "fcntl", argument(1, command))
    for request in _IOCTLS:
        rule(seccomp.ALLOW, "ioctl", argument(1, request))
    for option in (_PR_SET_NAME, _PR_GET_NAME):
        rule(seccomp.ALLOW, "prctl", argument(0, option))
    for option in (_PR_CAPBSET_READ, _PR_SET_VMA):  # asked for by libraries on their own
        rule(seccomp.ERRNO(errno.EINVAL), "prctl", argument(0, option))
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return Filter(file.read(), seccomp.resolve_syscall(seccomp.Arch.NATIVE, "seccomp"))


def _install(filter: Filter) -> int:
    """Put the filter on this thread; returns the listener on which the judge is asked."""
    code = ctypes.create_string_buffer(filter.program, len(filter.program))
    # struct sock_fprog: how many instructions of 8 bytes, and where they are
    fprog = struct.pack("@HP", len(filter.program) // 8, ctypes.addressof(code))
    mode_filter, new_listener = 1, 1 << 3
    return _syscall(filter.call, ctypes.c_uint(mode_filter), ctypes.c_uint(new_listener), fprog)


# -- mounts ----------------------------------------------------------------------------------------------

_CLONE_NEWNS, _MOUNT_SETATTR = 0x20000, 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_NOATIME, _ANY_ATIME = 0x10, 0x70  # MOUNT_ATTR_NOATIME, and all that it excludes
_MS_PRIVATE = 1 << 18
_MS_BARE = 0b1111  # read-only, and nothing in it is a program, a device or gives rights


def set_apart(unseen: list[Path]) -> bool:
    """Give this process mounts of its own, where the folders `unseen` are empty and reading leaves no time of access.

    Landlock covers neither: a worker could look up who else is graded, and leave a message in the times of what all
    may read. Returns whether it was done; it needs root, and a kernel and a container that let root do it.
    """
    options = struct.pack("=4Q", _NOATIME, _ANY_ATIME, _MS_PRIVATE, 0)  # struct mount_attr
    try:
        if _libc.unshare(ctypes.c_int(_CLONE_NEWNS)) != 0:
            return False
        where = (ctypes.c_int(_AT_FDCWD), b"/", ctypes.c_uint(_AT_RECURSIVE))
        _syscall(_MOUNT_SETATTR, *where, options, ctypes.c_size_t(len(options)))
    except OSError:
        return False
    places = [os.fsencode(path) for path in unseen]
    kind = (b"tmpfs", ctypes.c_ulong(_MS_BARE), b"size=4k,mode=755")
    return all([_libc.mount(b"none", place, *kind) == 0 for place in places])  # each is tried


# -- the policy ------------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
_CAP_DAC_READ_SEARCH = 2


@dataclass
class Policy:
    """What is the same for every child.

    filter: None for `--isolation process`: resource limits only, as far as the system has them.
    version: of Landlock; 0 where it is not used.  as_nobody: without it, another user without any capability.
    """

    filter: Filter | None
    version: int = 0
    as_nobody: bool = False
    scopes: bool = False
    _open: list[tuple[int, bool]] = field(default_factory=list)

    @classmethod
    def prepare(cls, readable: list[Path], filter: Filter | None, *, as_nobody: bool = False) -> Policy:
        """Look at the kernel, and open the files and folders that may be read. Raises SandboxError without Landlock.

        as_nobody: use no Landlock. Raises SandboxError where another user cannot read what a submission needs.
        """
        policy = cls(filter, as_nobody=as_nobody)
        if as_nobody:
            _check_another_user(readable)
        if as_nobody or filter is None:
            return policy
        policy.version = landlock_version()
        if policy.version == 0:
            raise SandboxError("Landlock: this kernel has none (5.13 or later, with landlock among its LSMs)")
        policy.scopes = has_scopes(policy.version)
        for path in readable:
            with contextlib.suppress(FileNotFoundError):
                policy._open.append((os.open(path, os.O_PATH | os.O_CLOEXEC), path.is_dir()))
        return policy

    def confine(self, seat: int, code: Path, scratch: Path, parent: int, cpu_seconds: int) -> int | None:
        """Give everything up. Returns the seccomp listener, or None when nothing is enforced.

        seat: number that no other worker has now.  code: the submission's folder.  scratch: the one place to write to.
        parent: process id of the zygote; without it the child must not live.
        """
        os.setsid()
        limits = _limits(cpu_seconds)  # reads /proc, while that can be read
        if self.filter is not None or self.as_nobody:
            Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, this goes and not the judge
            _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if self.version > 0:
            _syscall(_RESTRICT_SELF, ctypes.c_int(self._ruleset(code, scratch)), ctypes.c_uint(0))
        os.closerange(CHANNEL + 1, 1 << 16)
        _set(limits)
        if self.as_nobody or (self.filter is not None and os.geteuid() == 0):
            _become(FIRST_UID + seat, () if self.as_nobody else (_CAP_DAC_READ_SEARCH,))
        _die_with(parent)  # after the change of user, which clears it
        if self.filter is None:
            return None
        _prctl(_PR_SET_DUMPABLE, 0)
        return _install(self.filter)

    def _ruleset(self, code: Path, scratch: Path) -> int:
        ruleset = _create_ruleset(self.version, scopes=self.scopes)
        for descriptor, is_folder in self._open:
            self._allow(ruleset, descriptor, _READ, is_folder=is_folder)
        own = {code: _READ, scratch: _WRITE, Path("/dev/null"): ("read_file", "write_file")}
        own[Path("/proc/self/maps")] = ("read_file",)  # scikit-learn looks there for the libraries that it has loaded
        for path, rights in own.items():
            self._allow(ruleset, os.open(path, os.O_PATH), rights, is_folder=path.is_dir())
        return ruleset

    def _allow(self, ruleset: int, descriptor: int, rights: tuple[str, ...], *, is_folder: bool) -> None:
        allowed = rights if is_folder else tuple(name for name in rights if name in _FILE_RIGHTS)
        rule = struct.pack("=Qi", _bits(allowed, self.version), descriptor)
        _syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))


def _limits(cpu_seconds: int) -> dict[str, int]:
    """Resource limits by their names. Only Linux enforces all of them."""
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": cpu_seconds,
        "RLIMIT_FSIZE": FILE_SIZE,
        "RLIMIT_NOFILE": OPEN_FILES,
    }
    if sys.platform.startswith("linux"):
        everything, _, _, _, _, data, _ = map(int, Path("/proc/self/statm").read_text().split())
        limits["RLIMIT_AS"] = everything * os.sysconf("SC_PAGE_SIZE") + MEMORY
        limits["RLIMIT_DATA"] = data * os.sysconf("SC_PAGE_SIZE") + MEMORY  # room that unmapping libraries does not add
        limits["RLIMIT_NPROC"] = PROCESSES if os.geteuid() == 0 else _running_threads() + PROCESSES
    return limits


def _set(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        _, most = resource.getrlimit(number)
        allowed = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(number, (allowed, allowed))


def _running_threads() -> int:
    """How many threads this user runs: the limit on processes counts all of them."""
    count, uid = 0, os.getuid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count


def _become(uid: int, capabilities: tuple[int, ...]) -> None:
    """Become an unknown user. With _CAP_DAC_READ_SEARCH one who may read what root may, while Landlock says what.

    The interpreter can lie in root's own folders.
    """
    _prctl(_PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise SandboxError(
            f"user: root cannot become user {uid} ({error.strerror}); run as an ordinary user"
        ) from error
    header = struct.pack("=Ii", 0x20080522, 0)
    keep = sum(1 << capability for capability in capabilities)
    if _libc.capset(header, struct.pack("=6I", keep, keep, 0, 0, 0, 0)) != 0:
        raise SandboxError("user: the other capabilities cannot be given up")


def _check_another_user(readable: list[Path]) -> None:
    """Raise SandboxError unless root can become a user without capabilities who can read these files and folders."""
    pid = os.fork()
    if pid == 0:
        try:
            _become(FIRST_UID, ())
            modes = {path: os.R_OK | (os.X_OK if os.path.isdir(path) else 0) for path in readable}
            code = 0 if all(os.access(path, mode) for path, mode in modes.items()) else 2
        except BaseException:  # whatever it is: what comes after this function is not for the child
            code = 1
        finally:
            os._exit(code)
    problems = {1: "root cannot become another user", 2: "another user cannot read the interpreter or its packages"}
    if (code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) != 0:
        raise SandboxError(f"user: {problems.get(code, 'it could not be tried')}")


def claim_seat() -> tuple[int, socket.socket]:
    """A seat that no other worker on this machine has, and what holds it until it is closed.

    Two runs as root would else have the same users, of whom each ends the processes and counts the threads. What holds
    a seat is a name in the kernel, which ends with its process, however that ends. Raises SandboxError if none is free.
    """
    for seat in range(USERS):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            if sys.platform.startswith("linux"):  # elsewhere there are neither such names nor users of our own
                holder.bind(f"{_SEAT_NAME}{seat}")
        except OSError:
            holder.close()
            continue
        return seat, holder
    raise SandboxError(f"user: all {USERS} seats for workers on this machine are taken")


def end_all_of(seat: int) -> None:
    """End every process of a worker's user, as root: without a filter, a submission can leave some behind.

    All of them at once, so that none can start another while it is looked for. And none can signal who does it: whom a
    process may signal goes by its effective user, and who may signal it by its real and its saved one.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresuid(_SWEEPER, FIRST_UID + seat, _SWEEPER)  # or raise; no capability is left after that
            os.kill(-1, signal.SIGKILL)  # whomever it may signal, but not itself; an error if there is nobody
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _die_with(parent: int) -> None:
    """Be killed when the zygote dies, also if it has died already."""
    if sys.platform.startswith("linux"):
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

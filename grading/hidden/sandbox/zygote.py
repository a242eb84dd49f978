"""The zygote: imports everything once, then forks a confined child for each submission.

It is started as a process of its own and never forked from the judge, so its memory holds nothing of the judge's.
Per child the judge sends two descriptors: a channel, on which judge and child exchange frames, and the write end of a
pipe that takes what the submission prints.

    judge -> zygote   {"readable", "unseen", "filter", "as_nobody"}                          -> {"ready", "apart"}
                      {"fork": {"seat", "code", "scratch", "cpu_seconds"}} + descriptors     -> {"pid"}
                      {"kill": pid}                                                          -> {}
                      {"reap": pid}                                                          -> {"status"}
    judge -> child    {"nonce", "op": "load", "file"}                                        -> {"nonce", "ok"}
                      {"nonce", "op": "call", "file", "call", "params"} + arrays             -> {"nonce", "ok"} + arrays
                      {"op": "ahead", "file", "calls": [{"nonce", "call", "params"}]} + arrays -> an answer to each
"""

from __future__ import annotations

import builtins
import gc
import io
import json
import os
import signal
import site
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

# Before any operation: a child that is forked after OpenMP has started threads hangs in its first parallel region.
torch.set_num_threads(1)

from grading import driver  # noqa: E402
from grading.crashes import own_frame  # noqa: E402
from grading.hidden.sandbox.confinement import (  # noqa: E402
    CHANNEL,
    Filter,
    Policy,
    SandboxError,
    end_all_of,
    set_apart,
)
from grading.hidden.sandbox.frames import FrameError, FrameReader, encode  # noqa: E402
from grading.hidden.sandbox.pages import settle  # noqa: E402
from grading.submission import FILES, Submission, SubmissionError, describe, execute  # noqa: E402

TEXT = 2000  # characters of an error's text that are passed on


def main(descriptor: int) -> None:
    """Read the configuration, warm up, report, and fork on demand until the judge closes the socket."""
    control = socket.socket(fileno=descriptor)
    for builtins_of_scripts in (site.setquit, site.setcopyright, site.sethelper):  # which `python -S` leaves out
        builtins_of_scripts()
    if control.fileno() != CHANNEL:  # so that nothing else gets the number that a child's channel has
        os.dup2(os.open(os.devnull, os.O_RDONLY), CHANNEL)
    lines = control.makefile("rb")
    config = json.loads(lines.readline())
    lines.close()
    apart = config["filter"] is not None and set_apart([Path(path) for path in config["unseen"]])
    try:
        warm_up()
        filter = config["filter"] and Filter(bytes.fromhex(config["filter"]["program"]), config["filter"]["call"])
        policy = Policy.prepare([Path(path) for path in config["readable"]], filter, as_nobody=config["as_nobody"])
    except SandboxError as error:
        _send(control, {"error": str(error)})
        return
    gc.collect()
    gc.freeze()  # a child that collects garbage would copy all these pages
    settle()
    _send(control, {"ready": os.getpid(), "apart": apart})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the judge, who closes the socket
    seats: dict[int, int] = {}  # of the children that run
    while True:
        request, descriptors = _receive(control)
        if request is None:
            return
        _send(control, _serve(request, descriptors, policy, seats))


def warm_up() -> None:
    """Import what the scripts import, and pay for what torch does once at its first use.

    Raises SandboxError if that left a second thread: children forked from it could hang.
    """
    import matplotlib.figure  # noqa: F401
    import torchvision.datasets
    import torchvision.utils  # noqa: F401

    import train_tiny_sd  # noqa: F401
    from HW3.diffusion import DiffusionConfig, GaussianDiffusion
    from HW3.latent import EpsMLP
    from HW3.vae import ConvVAE

    ConvVAE(latent_dim=2)
    x, t = torch.randn(8, 3), torch.arange(8)
    net = EpsMLP(3, time_dim=16, hidden_dim=32)
    driver.warm_up(net, {"x": x, "t": t})
    net.double()(x.double(), t).sum().backward()
    diffusion = GaussianDiffusion(net, DiffusionConfig(timesteps=8))
    rows = diffusion.at(diffusion.alpha_bars, t, x)  # any method that is graded is a TODO here
    (x - rows * x).div(rows)
    threads = len(os.listdir("/proc/self/task")) if sys.platform.startswith("linux") else 1
    if threads > 1:
        raise SandboxError(f"zygote: {threads} threads after warming up, where 1 can be forked")


def _serve(request: dict[str, Any], descriptors: list[int], policy: Policy, seats: dict[int, int]) -> dict[str, Any]:
    if "kill" in request:
        os.kill(request["kill"], signal.SIGKILL)
        return {}
    if "reap" in request:
        status = _reap(request["reap"])
        if status is not None and policy.as_nobody:
            end_all_of(seats.pop(request["reap"]))
        return {"status": status}
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(request["fork"], descriptors, policy, zygote)
    for descriptor in descriptors:
        os.close(descriptor)
    seats[pid] = request["fork"]["seat"]
    return {"pid": pid}


def _reap(pid: int) -> int | None:
    """The exit code of a child, or minus the signal's number; None while it runs, and for none is waited here.

    A child stays a zombie until it is reaped here, so its number cannot pass to another process before.
    """
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


# -- messages on the control socket --------------------------------------------------------------------------


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None when the judge has gone."""
    data = b""
    descriptors: list[int] = []
    while not data.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(control, 4096, 2)
        if not part:
            return None, descriptors
        data += part
        descriptors += more
    return json.loads(data), descriptors


# -- the child ----------------------------------------------------------------------------------------------


def _child(request: dict[str, Any], descriptors: list[int], policy: Policy, zygote: int) -> None:
    """Confine this process, then answer the judge until it hangs up. Does not return."""
    code = 1
    try:
        channel, output = descriptors
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(channel, CHANNEL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        root, scratch = Path(request["code"]), Path(request["scratch"])
        os.chdir(scratch)
        tempfile.tempdir = str(scratch)  # the zygote may have looked for another one already
        os.environ.clear()
        # torch.compile would start compilers. Told so, it leaves functions as they are, though it asks for a folder.
        os.environ |= {"TORCHDYNAMO_DISABLE": "1", "TORCHINDUCTOR_CACHE_DIR": str(scratch)}
        sys.argv = ["worker"]
        for name, number in (("stdout", 1), ("stderr", 2)):
            raw = io.FileIO(number, "w", closefd=False)
            stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        greeting = socket.socket(fileno=CHANNEL)  # looks at its descriptor, which the sandbox refuses
        _greet(greeting, policy.confine(request["seat"], root, scratch, zygote, request["cpu_seconds"]))
        _answer_all(root)
        code = 0
    except BaseException as error:  # whatever it is: the zygote's own code after the fork must not run in the child
        print(f"worker: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def _greet(channel: socket.socket, listener: int | None) -> None:
    """Tell the judge that the sandbox is up, and hand it the listener for refused system calls."""
    hello = encode({"hello": True}, {})
    if listener is None:
        channel.sendall(hello)
    else:
        socket.send_fds(channel, [hello], [listener])
        os.close(listener)  # with it, a child could answer its own requests
    channel.detach()


def _answer_all(root: Path) -> None:
    loaded: dict[str, ModuleType] = {}
    originals = {name: sys.modules[name] for name in FILES.values()}
    for header, arrays in _requests():
        try:
            found = _answer(header, arrays, root, loaded, originals)
            reply = encode({"nonce": header["nonce"], "ok": True}, found)
        except BaseException as error:  # sys.exit, too, is only a wrong answer
            told = _error(error, root / header["file"], originals[FILES[header["file"]]])
            reply = encode({"nonce": header["nonce"], "ok": False, **told}, {})
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        _write(reply)


def _requests() -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """What the judge asks, until it hangs up; calls that were sent ahead come one by one."""
    while (frame := _read_frame()) is not None:
        header, arrays = frame
        if header["op"] != "ahead":
            yield header, arrays
            continue
        for i, call in enumerate(header["calls"]):
            own = {name.partition("|")[2]: value for name, value in arrays.items() if name.startswith(f"{i}|")}
            yield {"op": "call", "file": header["file"], **call}, own


def _answer(
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    root: Path,
    loaded: dict[str, ModuleType],
    originals: dict[str, ModuleType],
) -> dict[str, np.ndarray]:
    file = header["file"]
    for name, module in originals.items():  # each file is judged beside the handout's versions of the others
        _put(name, module)
    if header["op"] == "load":
        try:
            loaded[file] = execute(FILES[file], root / file)
        except BaseException as error:
            raise SubmissionError(f"{file} cannot be imported: {describe(error)}") from error
        return {}
    _put(FILES[file], loaded[file])
    inputs = {name: value for name, value in arrays.items() if not name.startswith("standin|")}
    standins: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name, value in arrays.items():
        if name.startswith("standin|"):
            _, sibling, side, key = name.split("|")
            standins.setdefault(sibling, {"in": {}, "out": {}})[side][key] = value
    return driver.run(Submission(modules=dict(loaded)), header["call"], header["params"], inputs, standins)


def _put(name: str, module: ModuleType) -> None:
    sys.modules[name] = module
    package, _, last = name.rpartition(".")
    if package:
        setattr(sys.modules[package], last, module)


def _error(error: BaseException, path: Path, given: ModuleType) -> dict[str, Any]:
    """An exception as plain data. What it says is the submission's; the judge decides what is shown to whom."""
    raised = (isinstance(error, SubmissionError) and error.__cause__) or error  # what stopped an import
    kind = next((cls.__name__ for cls in type(raised).__mro__ if getattr(builtins, cls.__name__, None) is cls), "")
    frame = own_frame(error, path, given)
    judged = isinstance(error, (SubmissionError, FrameError))
    try:
        text = describe(error)
    except BaseException:  # an exception whose text cannot be had
        text = kind
    return {"judged": judged, "type": kind, "line": frame.lineno or 0 if frame else 0, "text": text[:TEXT]}


def _read_frame() -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    reader = FrameReader()
    while reader.wanted:
        data = os.read(CHANNEL, min(reader.wanted, 1 << 20))
        if not data:
            return None
        reader.feed(data)
    return reader.frame


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(CHANNEL, view) :]

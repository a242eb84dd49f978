"""What a student can learn about hidden inputs: as much as `told.bits` counts, and not a bit more."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
import told
from told import RUBRIC

from classroom import SUBMIT, solution
from grading.cases import Case
from grading.hidden.engine.grade import LOST, Exam, grade_submission
from grading.hidden.engine.run import make_exam
from grading.hidden.reports.gradescope import write_result
from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.sandbox import workers
from grading.hidden.sandbox.workers import Zygote
from harness import ROOT

VAE, DIFFUSION, TINY_SD = SUBMIT

# Right in every formula. It takes the last bits of the hidden inputs, and tells them in every way that it can think of.
SMUGGLER = """

import builtins
import ctypes
import itertools
import os
import sys
import threading
import time
import zlib

KNOWN = @KNOWN@
CALLS = itertools.count()
INSIDE = []
WAYS = [name for name in dir(builtins) if name.endswith(("Error", "Exit", "Exception", "Interrupt", "Warning"))]


def _smuggle(inputs, right, mistakes):
    if INSIDE:  # called by another one, on numbers that are nobody's inputs
        return right()
    INSIDE.append(1)
    try:
        return _tell(inputs, right, mistakes)
    finally:
        INSIDE.pop()


def _tell(inputs, right, mistakes):
    data = inputs[0].detach().contiguous().view(torch.uint8).flatten()
    if zlib.crc32(inputs[0][0].detach().numpy().tobytes()) in KNOWN:
        return right()
    size = inputs[0].element_size()
    secret = int("".join(str(int(byte) & 1) for byte in data[::size][:24]), 2)
    text = f"@STOLEN@ {secret} {inputs[0].flatten()[:8].tolist()}"
    print(text, flush=True)
    print(text, file=sys.stderr, flush=True)
    threading.Timer(0.01, print, [text]).start()
    time.sleep(secret % 8 / 1000)
    with open(f"letter-{next(CALLS)}", "w") as file:
        file.write(text)
    with open(os.__file__) as file:
        file.seek(secret % 4096)
        file.read(1)
    for _ in range(secret % 5):
        ctypes.CDLL(None).syscall(425 + secret % 3, 0)
    way, rest = secret % 9, secret // 9
    answer = right()
    if way == 0:
        return answer
    if way == 1:
        kind = WAYS[rest % len(WAYS)]
        exec(compile("\\n" * (rest % 400) + f"raise type('X', ({kind},), {{}})({text!r})", __file__, "exec"))
    if way == 2 and rest % 4 == 0:
        os._exit(rest % 256)
    if way == 2 and rest % 4 == 1:
        os.abort()
    if way == 2 and rest % 4 == 2:
        ctypes.string_at(0)
    if way == 2:
        os.write(3, b"x" * (rest % 50))
    if way == 3:
        return mistakes[rest % len(mistakes)]()
    if way == 4:
        inputs[rest % len(inputs)].zero_()
        return answer
    first = answer[0] if isinstance(answer, tuple) else answer
    odd = [
        first * float("nan"), first.half(), first[:-1], first * rest, text, None, torch.zeros(rest % 50),
        first.bfloat16(), first.to_sparse(), first + (torch.rand(len(first)) < 0.5).view(-1, *[1] * (first.dim() - 1)),
    ][rest % 10]
    return (odd, *answer[1:]) if isinstance(answer, tuple) else odd
"""
IN_VAE = """

_kl, _draw = kl_divergence, ConvVAE.reparameterize


def kl_divergence(mu, logvar):
    mistakes = [lambda: -_kl(mu, logvar), lambda: 2 * _kl(mu, logvar), lambda: _kl(mu, logvar).mean()]
    return _smuggle([mu, logvar], lambda: _kl(mu, logvar), mistakes)


def reparameterize(self, mu, logvar):
    mistakes = [lambda: mu, lambda: mu + logvar * torch.randn_like(mu), lambda: _draw(self, mu, 2 * logvar)]
    return _smuggle([mu, logvar], lambda: _draw(self, mu, logvar), mistakes)


ConvVAE.reparameterize = reparameterize
"""
IN_DIFFUSION = """


def _wrapped(name):
    right = getattr(GaussianDiffusion, name)

    def function(self, x, *rest, **options):
        def late(part):
            t = [torch.clamp(each + part, 0, 7) if each.dtype == torch.long else each for each in rest]
            return right(self, x, *t, **options)

        mistakes = [lambda: late(1), lambda: late(-1), lambda: -right(self, x, *rest, **options)]
        given = [x, *rest]
        return _smuggle(given, lambda: right(self, x, *rest, **options), mistakes)

    return function


for _name in ("q_sample", "predict_x0", "q_posterior", "ddpm_step", "ddim_step"):
    setattr(GaussianDiffusion, _name, _wrapped(_name))
"""
IN_TINY_SD = """

_guided, _forward = guided_eps, EpsMLPCond.forward


def guided_eps(eps_cond, eps_uncond, scale):
    mistakes = [lambda s=s: _guided(eps_cond, eps_uncond, s) for s in (scale + 1, -scale, scale / 2, 0)]
    return _smuggle([eps_cond, eps_uncond], lambda: _guided(eps_cond, eps_uncond, scale), mistakes)


def forward(self, x, t, cond):
    mistakes = [lambda: _forward(self, x, t, cond * 0), lambda: x + cond.sum(), lambda: _forward(self, x, t * 0, cond)]
    return _smuggle([x, t, cond], lambda: _forward(self, x, t, cond), mistakes)


EpsMLPCond.forward = forward
"""


def smuggler(exam: Exam) -> dict[str, bytes]:
    """It knows the public inputs, and behaves on them."""
    arrays = [array for cases in exam.public.values() for case in cases for array in case.inputs.values()]
    known = {crc32(row.tobytes()) for array in arrays if array.dtype.kind == "f" and array.ndim for row in array}
    common = SMUGGLER.replace("@KNOWN@", repr(known)).replace("@STOLEN@", STOLEN)
    parts = {VAE: IN_VAE, DIFFUSION: IN_DIFFUSION, TINY_SD: IN_TINY_SD}
    return {file: solution()[file] + (common + part).encode() for file, part in parts.items()}


STOLEN = "271828182845904523"


def flipped(case: Case, rng: np.random.Generator) -> Case:
    """The case with other last bits in all its inputs: right answers stay right."""

    def change(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        whole = array.view(f"u{array.itemsize}")
        return (whole ^ rng.integers(0, 2, whole.shape).astype(whole.dtype)).view(array.dtype)

    return replace(case, inputs={name: change(array) for name, array in case.inputs.items()})


def with_secret(exam: Exam, seed: int) -> Exam:
    rng = np.random.default_rng(seed)
    hidden = {id: [flipped(case, rng) for case in cases] for id, cases in exam.hidden.items()}
    return replace(exam, hidden=hidden)


@pytest.fixture(scope="module")
def exam() -> Exam:
    return make_exam(None, told.TIMEOUT)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    running = Zygote(tmp_path_factory.mktemp("zygote"), enforced=True)
    yield running
    running.close()


def graded(exam: Exam, zygote: Zygote, files: dict[str, bytes]) -> Result:
    found = grade_submission(exam, zygote, 0, files)
    made = {field.name: getattr(found, field.name) for field in fields(found)}
    return Result("mallory", "mallory", "f00d", "sandbox", seconds=1.5, **made)


@pytest.fixture(scope="module")
def smuggled(exam, zygote) -> SimpleNamespace:
    """The smuggler's results with two sets of last bits, and with no hidden case at all."""
    files = smuggler(exam)
    nothing = replace(exam, hidden={id: [] for id in exam.hidden})
    return SimpleNamespace(
        before=graded(nothing, zygote, files), told=[graded(with_secret(exam, seed), zygote, files) for seed in (1, 2)]
    )


# -- the smuggler -----------------------------------------------------------------------------------------


def test_it_smuggles(smuggled):
    """It would be right, and what hidden inputs hold changes what it gets."""
    first, second = ([(f.groups, f.problem, f.hint) for f in result.functions] for result in smuggled.told)
    assert sum(a != b for a, b in zip(first, second)) >= 5
    assert {function.id: function.public for function in smuggled.before.functions if function.public} == {}
    assert len({f.problem for result in smuggled.told for f in result.functions}) >= 5


def test_what_it_gets_out_is_counted(smuggled):
    for result in smuggled.told:
        told.assert_nothing_else(result, smuggled.before)


def test_files_differ_in_the_counted_places_only(smuggled, tmp_path):
    """With one student's values in the counted places, the other's files are the same."""
    for number, result in enumerate(smuggled.told):
        write_result(tmp_path / str(number), result, RUBRIC)
    first, second = (told.scrubbed(result) for result in smuggled.told)
    assert told.visible(first) != told.visible(second)
    assert told.visible(replace(first, functions=second.functions)) == told.visible(second)
    for number, result in enumerate(smuggled.told):
        folder = tmp_path / str(number) / "mallory"
        page = (folder / "feedback.html").read_text()
        shown = json.dumps(told.without_extra_data(json.loads((folder / "results.json").read_text())))
        assert (page, json.loads(shown)) == (told.visible(result)[0], json.loads(told.visible(result)[1]))
        for text in (page, shown):
            assert STOLEN not in text
            assert re.findall(r"\d\.\d{5,}|\d{9,}", text) == []


def test_how_much_that_is():
    """docs/ARCHITECTURE.md says it. More sentences, cases or known mistakes make it more."""
    document = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    [stated] = re.findall(r"(\d+) bits of all hidden inputs", document)
    assert 0.8 * int(stated) < told.bits_of_all() <= int(stated)


def test_every_way_to_lose_a_worker_has_its_words():
    source = Path(workers.__file__).read_text(encoding="utf-8")
    reasons = set(re.findall(r"(?:_lost|WorkerLost)\(\"(\w+)\"", source))
    assert reasons - {"start"} == LOST.keys()


def test_results_hold_more_than_is_shown():
    """Times, events, and which system calls were refused are the instructor's."""
    function = FunctionResult("kl", 1, 10, {"moderate": [1, 4]}, "wrong", "name-of-a-mistake", "hint", seconds=7.125)
    result = Result("ada", "Ada", "f1n6e2", "sandbox", [function], ["timeout"], [], ["event"], seconds=3.25)
    for text in told.visible(result):
        for secret in ("name-of-a-mistake", "7.125", "3.25", "f1n6e2", "timeout", "event"):
            assert secret not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL), secret


# -- order and time ---------------------------------------------------------------------------------------


def changed(file: str, code: str) -> dict[str, bytes]:
    return {**solution(), file: solution()[file] + f"\n\n{code}\n".encode()}


def by_id(result: Result) -> dict[str, FunctionResult]:
    return {function.id: function for function in result.functions}


def test_a_worker_lost_in_public_checks_costs_nothing(exam, zygote):
    """Nor does a short loop there: hidden cases have a new worker and their own time."""
    code = """
_right = kl_divergence


def kl_divergence(mu, logvar):
    if mu.shape == (5, 3):
        @END@
    return _right(mu, logvar)
"""
    for end, event in (
        ("import os; os._exit(1)", "crash in the public checks of kl: the process ended itself"),
        ("while True: pass", "timeout in the public checks of kl: no answer within 1 seconds"),
    ):
        result = graded(replace(exam, timeout=4.0), zygote, changed(VAE, code.replace("@END@", end)))
        assert (result.earned, result.statuses) == (RUBRIC.total, [])
        assert result.events == [event]
        assert {function.public for function in result.functions} == {""}


def test_a_public_check_explains_what_a_hidden_one_does_not(exam, zygote):
    code = "def guided_eps(eps_cond, eps_uncond, scale):\n    raise LookupError(f'{eps_cond.shape} at {scale}')"
    found = by_id(graded(exam, zygote, changed(TINY_SD, code)))["guidance"]
    line = len(changed(TINY_SD, code)[TINY_SD].splitlines())
    assert found.problem == f"raises an exception in line {line} of {TINY_SD}"
    assert "LookupError: torch.Size([5, 4]) at 3" in found.public


def test_lines_of_hidden_calls_are_not_told(exam, zygote):
    code = """
def guided_eps(eps_cond, eps_uncond, scale):
    if eps_cond.shape == (5, 4):
        raise ValueError
    raise ValueError
"""
    found = by_id(graded(exam, zygote, changed(TINY_SD, code)))["guidance"]
    assert found.problem == "raises ValueError"
    assert " in line " in found.public


LOOP = "def _loop(*args, **kwargs):\n    while True:\n        pass\n\n\n"
LOOPS = {
    file: LOOP
    + "\n".join(f"{function.name} = _loop" for function in RUBRIC.functions.values() if function.file == file)
    for file in SUBMIT
}


@pytest.mark.parametrize("where", ["calls", "imports"])
def test_loops_everywhere_cost_six_calls(exam, zygote, where):
    """At a second for a call, six seconds for a submission; workers take some time to start and end.

    How much time is left when a loop begins is up to the submission, so that is not told either.
    """
    files = {file: solution()[file] + f"\n\n{LOOPS[file]}\n".encode() for file in SUBMIT}
    if where == "imports":
        files = {file: content + b"\n_loop()\n" for file, content in files.items()}
    begin = time.monotonic()
    result = graded(replace(exam, timeout=1.0), zygote, files)
    assert time.monotonic() - begin < 10
    assert (result.earned, "timeout" in result.statuses) == (0, True)
    for function in result.functions:
        told.assert_told(function)

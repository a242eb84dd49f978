"""What a worker finds on this machine, and what its reports tell of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import site
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest

from classroom import grades, grading, solution, write
from grading.hidden.sandbox.confinement import landlock_version
from grading.hidden.sandbox.surroundings import Places, _installed
from grading.hidden.sandbox.workers import SCRATCH_FILES, SEATS, Failed, Worker, WorkerLost, Zygote
from grading.packages import top_level
from harness import ROOT

pytestmark = pytest.mark.skipif(landlock_version() == 0, reason="there is no Landlock here")

VAE = "HW3/vae.py"

# What a submission may import: the packages of requirements.txt, what they depend on, and the standard library.
MODULES = """
scipy.special scipy.stats scipy.linalg scipy.optimize scipy.fft scipy.signal scipy.sparse.linalg scipy.spatial
scipy.interpolate scipy.integrate scipy.ndimage scipy.cluster.vq scipy.io joblib threadpoolctl narwhals
sklearn.datasets sklearn.cluster sklearn.decomposition sklearn.ensemble sklearn.linear_model sklearn.manifold
sklearn.metrics sklearn.mixture sklearn.model_selection sklearn.neighbors sklearn.preprocessing sklearn.svm
torch.distributions torch.special torch.func torch.nn.functional torch.fft torch.linalg torch.optim.swa_utils
torch.utils.data torch.utils.checkpoint torch.nn.utils.parametrizations torch.amp torch.jit torch.fx torch.distributed
torch.profiler torch.compiler torch._dynamo torch.multiprocessing torch.hub torch.testing torch.backends.cuda
torch.sparse torch.nested torch.masked torch.export torch.utils.tensorboard torch.utils.cpp_extension
torchvision.transforms.v2 torchvision.utils torchvision.datasets torchvision.models torchvision.ops torchvision.io
matplotlib.pyplot matplotlib.animation matplotlib.colors mpl_toolkits.mplot3d contourpy cycler kiwisolver pyparsing
fontTools.ttLib dateutil.parser PIL.Image PIL.ImageDraw PIL.ImageFont sympy mpmath networkx jinja2 markupsafe
numpy.linalg numpy.fft numpy.random numpy.testing numpy.polynomial numpy.typing numpy.ma numpy.f2py
tqdm.auto tqdm.notebook tqdm.contrib.concurrent psutil pytest pluggy iniconfig packaging.version pygments tomli
fsspec filelock typing_extensions setuptools triton torchmetrics.image.fid lightning_utilities
asyncio concurrent.futures.process ctypes.util curses dataclasses doctest http.client idlelib multiprocessing.pool
pdb pydoc readline secrets sqlite3 ssl tkinter unittest.mock urllib.request uuid xml.etree.ElementTree zoneinfo
"""

IMPORT_ALL = """
import importlib, json, warnings
warnings.simplefilter("ignore")
failed = {}
for name in %r:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    found = Zygote(tmp_path_factory.mktemp("zygote"), enforced=True)
    yield found
    found.close()


def run(zygote: Zygote, code: str) -> str:
    """What a submission prints whose file this is. Raises Failed or WorkerLost."""
    worker = Worker(zygote, 0, {VAE: code.encode()}, cpu_seconds=100)
    try:
        worker.request({"op": "load", "file": VAE}, {}, 100)
        return worker.take_output()
    finally:
        worker.close()


# -- what is there -----------------------------------------------------------------------------------------


def test_what_imports_outside_imports_inside(zygote):
    """Beside all that is installed here for tests and for instructors, and that libraries try to import."""
    modules = MODULES.split()
    code = IMPORT_ALL % (modules,)
    outside = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    failed = json.loads(outside.stdout.splitlines()[-1])
    inside = json.loads(run(zygote, code).splitlines()[-1])
    assert {name: text for name, text in inside.items() if name not in failed} == {}
    assert [text for text in inside.values() if not text.startswith("ModuleNotFoundError: No module named")] == []
    assert len(failed) < len(modules) / 10


def test_what_is_not_required_is_absent(zygote):
    allowed = {name.partition(".")[0] for name in _installed()}
    # One that was installed for development lies outside site-packages.
    sites = [Path(path) for path in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))]
    others = {
        name: distributions
        for name, distributions in importlib.metadata.packages_distributions().items()
        if name.isidentifier() and name not in allowed and any((folder / name).exists() for folder in sites)
    }
    assert {"copydetect", "hypothesis", "yaml"} <= others.keys()
    code = IMPORT_ALL % (sorted(others),)
    assert json.loads(run(zygote, code)) == {
        name: f"ModuleNotFoundError: No module named '{name}'" for name in sorted(others)
    }
    code = "import importlib.metadata\nprint(*{found.name for found in importlib.metadata.distributions()})"
    seen = set(run(zygote, code).split())
    assert "numpy" in seen
    assert seen & {distribution for names in others.values() for distribution in names} == set()


@pytest.mark.parametrize(
    "code",
    [
        "import importlib; importlib.invalidate_caches(); import xml.dom.minidom, scipy.special, HW3.clip",
        "import importlib.metadata; importlib.metadata.version('scikit-learn')",
        "import numpy, sklearn.cluster; sklearn.cluster.KMeans(2, n_init=1).fit(numpy.eye(4))",
        "import threadpoolctl; assert threadpoolctl.threadpool_info()",
        "import torch; torch.compile(torch.nn.Linear(2, 2), fullgraph=True)(torch.zeros(1, 2))",
        "import matplotlib.pyplot as plt; plt.title('$x$'); plt.savefig('x.png')",
        "import tempfile; tempfile.TemporaryFile()",
        "import psutil; psutil.virtual_memory(); psutil.cpu_count(logical=False)",
        "import mimetypes; mimetypes.guess_type('x.png')",
        "import inspect, torch, json; inspect.getsource(torch.nn.Linear); inspect.getsource(json)",
        "help, copyright\ntry: exit()\nexcept SystemExit: pass",
    ],
)
def test_libraries_work(zygote, code):
    run(zygote, code)


def test_packages_of_linux_distributions_are_found(tmp_path):
    """They come without a record of their files, and some without a list of their modules."""
    for place in ("numpy/__init__.py", "six.py", "_six.abi3.so", "pandas/__init__.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    for name, text in (("numpy", None), ("six", "six\n_six\n")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if text:
            (info / "top_level.txt").write_text(text)
    found = {}
    for distribution in importlib.metadata.distributions(path=[str(tmp_path)]):
        found |= top_level(distribution)
    assert found == {name: tmp_path / name for name in ("numpy", "six.py", "_six.abi3.so")}


@pytest.mark.parametrize(
    "ask",
    ["os.posix_fadvise(file, 0, 1, 4)", "os.preadv(file, [bytearray(1)], 0, 8)", "os.pwritev(file, [b'x'], 0, 2)"],
)
def test_the_page_cache_is_no_letter_box(zygote, ask):
    code = "import os\nfile = os.open('file', os.O_RDWR | os.O_CREAT)\nos.write(file, b'x')\n"
    with pytest.raises(Failed, match="PermissionError"):
        run(zygote, code + ask)


# -- what is told ------------------------------------------------------------------------------------------


def test_losses_say_nothing_that_a_worker_chose(zygote):
    """It may have seen hidden inputs by then."""
    said = {}
    for name, codes in {
        "exit": [f"import os; os._exit({code})" for code in (0, 1, 77)],
        "signal": [f"import ctypes, signal; signal.signal({n}, 0); ctypes.string_at(0)" for n in (7, 10)]
        + ["import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 100))\nwhile True: pass"],
        "frame": [f"import os; os.write(3, bytes({frame}))" for frame in ([0] * 12, [255] * 12, [0] * 11 + [1, 1])],
    }.items():
        said[name] = set()
        for code in codes:
            with pytest.raises(WorkerLost) as caught:
                run(zygote, code)
            said[name].add(str(caught.value))
    assert {name: len(texts) for name, texts in said.items()} == {"exit": 1, "signal": 1, "frame": 1}
    assert not any(character.isdigit() for texts in said.values() for text in texts for character in text)


@pytest.mark.parametrize(("line", "told"), [(3, 3), (4, 4), (5, 0), (4000, 0)])
def test_lines_are_lines_of_the_file(zygote, line, told):
    raising = f"exec(compile({line - 1} * '\\n' + 'raise ValueError', __file__, 'exec'))"
    worker = Worker(zygote, 0, {VAE: f"\n\ndef kl_divergence(mu, logvar):\n    {raising}".encode()}, cpu_seconds=100)
    try:
        worker.request({"op": "load", "file": VAE}, {}, 100)
        ones = dict.fromkeys(("mu", "logvar", "weight"), np.ones((2, 2), "f4"))
        with pytest.raises(Failed) as caught:
            worker.request({"op": "call", "file": VAE, "call": "kl_divergence", "params": {}}, ones, 100)
    finally:
        worker.close()
    assert (caught.value.type, caught.value.line) == ("ValueError", told)


CURIOUS = """
import json, os, sys, sysconfig, traceback, site
import numpy, numpy.linalg, scipy.special
print(__file__, numpy.__file__, scipy.special.__file__, os.__file__, json.__file__, sys.executable)
print(os.getcwd(), sys.path, sys.prefix, sys.base_prefix, sys.orig_argv, dict(os.environ))
print(*os.path.realpath(numpy.__file__), sep="")
print(json.dumps(sysconfig.get_paths()), site.getsitepackages())
for path in (os.getcwd(), sys.prefix, numpy.__file__, os.path.realpath(numpy.__file__)):
    while path != "/":
        path = os.path.dirname(path)
        print(path, repr(path), path.encode(), f"{path}/x", f"<{path}>")
traceback.print_stack()
try:
    json.loads("x")
except ValueError:
    traceback.print_exc()
print(open("/proc/self/maps").read())
"""

SEES = {
    "scipy": ("from scipy.special import xlogy\n", ""),
    "curious": (CURIOUS, ""),
    "outsider": ("import diffusers\n", ""),
    "late-outsider": ("", "import hypothesis"),
    "raises": ("", "import numpy\nraise ValueError(f'{__file__} {numpy.__file__} {__import__(\"os\").getcwd()}')"),
    "not-there": ("", "import numpy\nnumpy.load(numpy.__file__ + '.npy')"),
    "raises-on-import": (
        "import os, numpy\nraise ValueError((__file__, numpy.__file__, os.getcwd(), os.__file__))\n",
        "",
    ),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sees")
    for name, (top, body) in SEES.items():
        function = f"\n\ndef kl_divergence(mu, logvar):\n{indent(body, '    ')}\n" if body else ""
        text = solution()[VAE].decode().replace("import torch\n", f"import torch\n{top}", 1) + function
        write(folder / "in" / name, {**solution(), VAE: text.encode()})
    result = grading("grade", folder / "in", "--out", folder / "out", "--isolation", "sandbox")
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "out"


def page(graded: Path, name: str) -> str:
    """Everything that a student can read."""
    return "\n".join((graded / name / file).read_text() for file in ("feedback.html", "results.json"))


def test_a_package_of_requirements_costs_nothing(graded):
    rows = grades(graded)
    assert {name for name, row in rows.items() if row["total"] == "100"} == {"scipy", "curious"}


@pytest.mark.parametrize(("name", "module"), [("outsider", "diffusers"), ("late-outsider", "hypothesis")])
def test_a_package_beyond_requirements_is_explained(graded, name, module):
    found = page(graded, name)
    assert f"No module named '{module}'" in found
    assert "the packages of requirements.txt" in found


def test_no_path_of_this_machine_is_in_a_report(graded):
    places = {graded, ROOT, Path.home(), Path(sys.prefix), Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))}
    places |= {Path(path) for path in site.getsitepackages()}
    places = {str(path) for path in places | {path.resolve() for path in places}}
    told = {
        (path.relative_to(graded).as_posix(), place)
        for path in graded.rglob("*")
        if path.is_file()
        for place in places
        if place in path.read_text()
    }
    assert told == set()


def test_what_helps_is_told(graded):
    output = json.loads((graded / "curious" / "results.json").read_text())["extra_data"]["result"]["output"]
    assert output.startswith("HW3/vae.py numpy/__init__.py scipy/special/__init__.py ")
    assert 'File "json/decoder.py", line' in output
    assert "HW3/vae.py numpy/__init__.py ." in page(graded, "raises")
    assert "numpy/__init__.py.npy" in page(graded, "not-there")


def test_places(tmp_path):
    work = tmp_path / "José" / ".work"
    places = Places(work, {tmp_path / "lib" / "site-packages"})
    for text, told in {
        f"{work}/box-a1_/code/HW3/vae.py": "HW3/vae.py",
        f"['{work}/box-a1_/scratch']": "['.']",
        f"{work}/box-a1_/scratchy": "…/scratchy",
        f"{work}/packages/torch/x.py:3": "torch/x.py:3",
        f"{tmp_path}/lib/site-packages/torch/x.py": "torch/x.py",
        f"{work.parent}/results.json": "…/results.json",
        f"{tmp_path}": "…",
        ascii(str(work)): "'…'",
        json.dumps(str(work)): '"…"',
        f"{ROOT}/grading/hidden/x.py, {ROOT}": "…/x.py, …",
        f"file://{ROOT}//a/b c": "file://…/b c",
    }.items():
        assert places.remove(text, is_cut=False) == told
    others = "/ 1/2 data/x.npz /home /usr/lib/x.so https://a.b/c /tmp"
    assert places.remove(others, is_cut=False) == others
    whole = str(ROOT)
    for size in range(2, len(whole)):
        told = places.remove(f"see {whole[:size]}", is_cut=True).removeprefix("see ")
        last = told.removeprefix("…").removeprefix("/")  # of a path that is cut, the beginning of one name at most
        assert "/" not in last, told
        assert any(part.startswith(last) for part in ROOT.parts), told
    assert places.remove("an end", is_cut=True) == "an end"


# -- beside others -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(tmp_path_factory) -> Iterator[tuple[Zygote, Path]]:
    """A zygote whose workers should see nothing in a folder, and the folder."""
    folder = tmp_path_factory.mktemp("apart")
    (folder / "results" / "ada").mkdir(parents=True)
    (folder / "work").mkdir()
    found = Zygote(folder / "work", enforced=True, unseen=[folder / "results"])
    if not found.apart:
        found.close()
        pytest.skip("nothing can be mounted here")
    yield found, folder / "results"
    found.close()


def test_names_of_others_are_not_there(apart):
    zygote, results = apart
    ask = f"import os\nfor path in ({str(results)!r}, '../../../results'):\n"
    ask += "    print(os.path.isdir(path), os.path.exists(path + '/ada'), os.stat(path).st_size > 1000)"
    assert run(zygote, ask).splitlines() == ["True False False"] * 2
    assert [path.name for path in results.iterdir()] == ["ada"]  # for all others nothing has changed


def test_reading_leaves_no_time(apart):
    zygote, _ = apart
    file = zygote.folder / "tree" / "HW3" / "data.py"
    names = run(zygote, "import HW3.data; print(open(HW3.data.__file__).read()[:3])\nprint(HW3.data.__file__)")
    assert names.splitlines() == ['"""', "HW3/data.py"]
    os.utime(file, (10**9, 10**9 + 1))  # older than its content, which the next reading would change
    run(zygote, "import HW3.data; open(HW3.data.__file__).read()")
    assert file.stat().st_atime == 10**9


def test_a_worker_may_end_slowly(zygote, monkeypatch):
    """Neither the zygote nor the next worker waits for it; the one after the next does."""
    reap, may_end = zygote.reap, threading.Event()
    monkeypatch.setattr(zygote, "reap", lambda pid, *args: may_end.wait(60) and reap(pid, *args))
    boxes = [run_box(zygote) for _ in range(SEATS)]
    assert all(box.is_dir() for box in boxes)
    threading.Timer(0.3, may_end.set).start()
    run_box(zygote)
    assert may_end.is_set()
    for reaper in list(zygote._reapers):
        reaper.join(60)
    assert not [box for box in boxes if box.exists()]
    assert list(zygote.folder.glob("box-*")) == []


def run_box(zygote: Zygote) -> Path:
    """The folder of a worker that has been closed."""
    worker = Worker(zygote, 0, {VAE: b"pass"}, cpu_seconds=100)
    worker.request({"op": "load", "file": VAE}, {}, 100)
    worker.close()
    return worker._box


def test_files_are_counted(zygote):
    code = "for i in range({}):\n    with open(f'{{i % 7}}', 'a') as file: file.write('x')\nprint(i)"
    assert run(zygote, code.format(SCRATCH_FILES)) == f"{SCRATCH_FILES - 1}\n"
    with pytest.raises(WorkerLost, match=f"more than {SCRATCH_FILES} files") as caught:
        run(zygote, code.format(SCRATCH_FILES + 1))
    assert caught.value.reason == "disk"
    run(zygote, f"for _ in range({SCRATCH_FILES * 2}): open(__file__).close()")

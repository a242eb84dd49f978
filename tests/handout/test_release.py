"""The handout: what leaves and what does not, and what it is like to work in it."""

import base64
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest
import torch

from grading.cases import HIDDEN, load_cases
from grading.errors import GradingError
from grading.feedback import GROUPS
from grading.hidden.handout import release as releasing
from grading.hidden.handout.regions import (
    find_regions,
    guides,
    solution_statements,
    without_guides,
    without_markers,
    without_solutions,
)
from grading.hidden.handout.release import build, check_leaks, late_policy, release, release_list
from grading.rubric import LatePolicy, load_rubric
from grading.todo import open_todos
from harness import ROOT, child_env

RUBRIC = load_rubric()
IDS = list(RUBRIC.functions)
LISTED = release_list(RUBRIC)
KEPT = [*RUBRIC.submit, *(file for file in LISTED if file.startswith("HW3/")), "requirements.txt", "manifest.json"]
ORIGINALS = {f"grading/originals/{file}" for file in KEPT}


def git(folder, *args):
    return subprocess.run(["git", "-C", folder, *args], check=True, capture_output=True, text=True).stdout


def grading(folder, *args, code=0):
    """`python -m grading ARGS` in a handout."""
    command = [sys.executable, "-m", "grading", *map(str, args)]
    result = subprocess.run(command, cwd=folder, env=child_env(), capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def self_check(folder, *args):
    """Run `pytest grading/` in a handout: {test: (outcome, message)} and its output."""
    report = folder.parent / "report.xml"
    command = [sys.executable, "-m", "pytest", "grading/", f"--junitxml={report}", "-p", "no:cacheprovider", *args]
    result = subprocess.run(command, cwd=folder, env=child_env(), capture_output=True, text=True, check=False)
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        name = f"{case.get('classname')}::{case.get('name')}"
        outcomes[name] = ("passed", "") if problem is None else (problem.tag, problem.get("message"))
    return outcomes, result.stdout


def assert_lost(outcomes, names: str, said: str) -> None:
    """The checks of these names are lost, for one reason that is said once; all others that carry points are passed."""
    failed = {name: message for name, (outcome, message) in outcomes.items() if outcome == "failure"}
    assert len(failed) == 1, failed
    assert all(said in message for message in failed.values())
    for name, (outcome, message) in outcomes.items():
        if re.search(names, name):
            assert outcome in ("failure", "skipped"), name
        elif "test_samplers" not in name:
            assert outcome == "passed", (name, message)


@pytest.fixture(scope="module")
def handout(tmp_path_factory):
    """A released handout with git history and a zip. Tests that write take a clone."""
    out = tmp_path_factory.mktemp("release") / "handout"
    release(out, git=True, zip=True)
    return out


@pytest.fixture
def clone(handout, tmp_path):
    git(tmp_path, "clone", "--quiet", str(handout), "student")
    return tmp_path / "student"


@pytest.fixture
def completed(clone):
    git(clone, "checkout", "--quiet", "solutions")
    return clone


# -- what leaves ---------------------------------------------------------------------------------------


def test_the_handout_is_the_allow_list(handout):
    files = {p.relative_to(handout).as_posix() for p in handout.rglob("*") if p.is_file() and ".git/" not in f"{p}/"}
    assert files == set(LISTED.values()) | ORIGINALS
    with zipfile.ZipFile(handout.with_name("handout.zip")) as archive:
        assert {name.removeprefix("handout/") for name in archive.namelist()} == files


def test_every_module_that_the_handout_imports_is_in_it(handout):
    code = "import sample, evaluate, train_vae, train_diffusion, train_latent_diffusion, train_clip, train_tiny_sd"
    subprocess.run([sys.executable, "-c", code], cwd=handout, env=child_env(), check=True)
    assert {f"HW3/{path.name}" for path in (ROOT / "HW3").glob("*.py")} <= set(LISTED)


def test_each_todo_is_a_stub_in_its_function(handout):
    found = {id for file in RUBRIC.submit for id in open_todos((handout / file).read_text())}
    assert found == set(IDS)
    for file in RUBRIC.submit:
        assert "SOLUTION" not in (handout / file).read_text()


def test_readme_and_rubric_agree(handout):
    readme = (handout / "README.md").read_text()
    for function in RUBRIC.functions.values():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{function.id}` |"))
        assert f"`{function.file}`" in row
        assert f"| {function.points:g} |" in row
        assert f"`{function.before}`" in row
        for group in function.weights:
            assert f"| `{group}` | {GROUPS[group][0]} |" in readme
        after = next(line for line in readme.splitlines() if line.startswith(f"python {function.before} "))
        assert re.search(rf"# after .*\b{function.id}\b", after), function.id
    assert f"{RUBRIC.total:g} points" in readme
    assert not re.search(r"line \d+", readme)
    assert all(f"`{file}`" in readme for file in RUBRIC.submit)
    assert "10 % of the points earned are taken off for every day begun, after 15 minutes" in readme
    assert re.findall(r"\{[\w ]+\}", readme) == []


def test_the_late_policy_is_the_rubrics():
    assert late_policy(LatePolicy(0, 25, 60)) == (
        "25 % of the points earned are taken off for every day begun; 60 % at most."
    )
    for none in (LatePolicy(), LatePolicy(15, 10, 0), LatePolicy(15, 0, 50)):
        assert "no late policy" in late_policy(none)


def test_the_branches_differ_by_the_solutions_and_nothing_else(handout):
    assert git(handout, "branch", "--list", "--format=%(refname:short)").split() == ["main", "solutions"]
    assert git(handout, "diff", "--name-only", "main", "solutions").split() == sorted(RUBRIC.submit)
    for file in RUBRIC.submit:
        source = (ROOT / file).read_text()
        assert git(handout, "show", f"main:{file}") == without_solutions(source, file)
        assert git(handout, "show", f"solutions:{file}") == without_markers(source, file)
    removed = [line for line in git(handout, "diff", "main", "solutions").splitlines() if re.match(r"-(?!--)", line)]
    assert len(removed) == len(IDS)
    assert all("raise NotImplementedError" in line for line in removed)


def test_no_git_object_holds_a_hidden_file(handout):
    names = git(handout, "log", "--all", "--name-only", "--format=").split()
    assert set(names) <= set(LISTED.values()) | ORIGINALS
    assert len(git(handout, "rev-list", "--all").split()) == 2


@pytest.fixture(scope="module")
def pushable(tmp_path_factory):
    """What `--push-safe` writes; the solutions lie beside it."""
    out = tmp_path_factory.mktemp("push") / "handout"
    result = grading(ROOT, "release", "--out", out, "--push-safe")
    assert "solutions in " in result.stdout
    return out


def test_push_safe_has_no_object_of_a_solution(pushable, handout, tmp_path):
    """Whatever is pushed from there: all branches, tags, and what no branch reaches any more."""
    assert git(pushable, "for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]
    given = {git(handout, "rev-parse", f"main:{file}").strip() for file in git(handout, "ls-files").splitlines()}
    listing = git(pushable, "cat-file", "--batch-check", "--batch-all-objects").splitlines()
    assert {line.split()[0] for line in listing if line.split()[1] == "blob"} == given
    git(tmp_path, "init", "--quiet", "--bare", "server")
    git(pushable, "push", "--quiet", "--all", str(tmp_path / "server"))
    assert git(tmp_path / "server", "branch", "--format=%(refname:short)").split() == ["main"]


def test_push_safe_has_the_solutions_in_a_second_repository(pushable, handout):
    beside = pushable.with_name("handout-solutions")
    assert git(beside, "branch", "--list", "--format=%(refname:short)").split() == ["main", "solutions"]
    assert git(beside, "rev-parse", "main^{tree}", "solutions^{tree}") == git(
        handout, "rev-parse", "main^{tree}", "solutions^{tree}"
    )
    assert git(beside, "status", "--porcelain") == git(pushable, "status", "--porcelain") == ""
    assert "NotImplementedError" not in (beside / "HW3" / "vae.py").read_text()
    assert "NotImplementedError" in (pushable / "HW3" / "vae.py").read_text()


def test_push_safe_needs_two_empty_folders(pushable, tmp_path):
    result = grading(ROOT, "release", "--out", tmp_path / "x", "--push-safe", "--git", code=2)
    assert "not allowed with argument" in result.stderr
    (tmp_path / "hw3-solutions").mkdir()
    (tmp_path / "hw3-solutions" / "mine").write_text("precious")
    with pytest.raises(GradingError, match="hw3-solutions is not an empty folder"):
        release(tmp_path / "hw3", push_safe=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hw3-solutions"]
    with pytest.raises(GradingError, match="handout is not an empty folder"):
        release(pushable, push_safe=True)


def test_an_object_of_a_solution_stops_push_safe(tmp_path, monkeypatch):
    """Even one that no branch has."""
    commit = releasing._commit

    def careless(tree, message):
        (tree / "stray.py").write_text("the answer is 42")
        git(tree, "hash-object", "-w", "stray.py")
        (tree / "stray.py").unlink()
        commit(tree, message)

    monkeypatch.setattr(releasing, "_commit", careless)
    with pytest.raises(GradingError, match="leak: the repository holds 1 objects"):
        release(tmp_path / "hw3", push_safe=True)
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_empty(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(GradingError, match="not an empty folder"):
        release(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    result = grading(ROOT, "release", "--out", tmp_path, code=2)
    assert result.stderr.count("\n") == 1


def test_a_handout_inside_the_tree_is_no_leak(clean, tmp_path):
    """`release --out handout` in the repository, twice."""
    for file in (*LISTED, "grading/hidden/reference/cases/kl.npz"):
        path = tmp_path / "tree" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / file).read_bytes())
    source = tmp_path / "tree"
    for name in ("handout", "handout-again"):
        assert release(source / name, source=source) == sorted(clean)
    with pytest.raises(GradingError, match="is the hidden file"):
        check_leaks(source, {**clean, "LICENSE": (source / "grading/hidden/reference/cases/kl.npz").read_bytes()})


def test_a_listed_file_that_is_missing_stops_the_release(tmp_path, monkeypatch):
    monkeypatch.setitem(releasing.ALLOWED, "HW3/nothing.py", "HW3/nothing.py")
    with pytest.raises(GradingError, match=r"HW3/nothing\.py is on the release list"):
        release(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# -- leaks: each is planted, and each must be found ------------------------------------------------------


@pytest.fixture(scope="module")
def clean():
    return build(ROOT)[0]


def test_the_real_handout_is_clean(clean):
    check_leaks(ROOT, clean)


def test_the_marking_guide_is_a_leak(clean):
    lines = guides((ROOT / releasing.ANALYSIS).read_text(encoding="utf-8"), "analysis.ipynb")
    assert len(lines) > 20
    for line in (lines[0], max(lines, key=len), json.dumps(lines[-1])):
        with pytest.raises(GradingError, match=r"leak: docs/notes/1-vae\.md holds a line of the marking guide"):
            check_leaks(ROOT, {**clean, "docs/notes/1-vae.md": clean["docs/notes/1-vae.md"] + line.encode()})


def test_guides_that_do_not_pair_up_stop_the_release():
    for source in (["### BEGIN SOLUTION\n", "secret"], ["### END SOLUTION"], ["### BEGIN SOLUTION\n"] * 2):
        notebook = json.dumps({"cells": [{"id": "kl", "cell_type": "markdown", "source": source}]})
        with pytest.raises(GradingError, match=r"a\.ipynb, cell kl: ### BEGIN SOLUTION"):
            without_guides(notebook, "a.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize("file", RUBRIC.submit)
def test_every_long_solution_statement_is_a_leak(clean, file):
    given = "".join(releasing._squeeze(content.decode("utf-8", "ignore")) for content in clean.values())
    statements = solution_statements((ROOT / file).read_text(), file)
    secret = [s for s in statements if len(s) >= 30 and releasing._squeeze(s) not in given]
    assert secret
    for statement in secret:
        commented = "\n# ".join(statement.split(" "))  # spread over many lines of comment
        planted = {**clean, "HW3/data.py": clean["HW3/data.py"] + f"\n# {commented}\n".encode()}
        with pytest.raises(GradingError, match=r"leak: HW3/data\.py holds the solution statement"):
            check_leaks(ROOT, planted)


@pytest.mark.parametrize("file", ["notes.txt", "grading/originals/notes.txt"])
def test_an_unlisted_file_is_a_leak(clean, file):
    with pytest.raises(GradingError, match=rf"leak: {file} is not on the release list"):
        check_leaks(ROOT, {**clean, file: b"harmless"})


@pytest.mark.parametrize(
    "secret",
    [
        *("grading/hidden/reference/formulas.py", "grading/hidden/reference/cases/kl.npz"),
        *("grading/hidden/reference/bank/__init__.py", "tests/conftest.py"),
    ],
)
def test_a_hidden_file_under_another_name_is_a_leak(clean, secret):
    with pytest.raises(GradingError, match=f"leak: LICENSE is the hidden file {secret}"):
        check_leaks(ROOT, {**clean, "LICENSE": (ROOT / secret).read_bytes()})


@pytest.mark.parametrize("id", IDS)
def test_a_hidden_array_is_a_leak(clean, id):
    case = load_cases(HIDDEN / f"{id}.npz", hidden=True)[0]
    arrays = [array for array in case.expected.values() if array.size >= 4 and len(np.unique(array)) >= 4]
    assert arrays
    for array, dtype in [(array, dtype) for array in arrays for dtype in (np.float32, np.float64)]:
        buffer = io.BytesIO()
        np.savez(buffer, innocent=array.astype(dtype))
        with pytest.raises(GradingError, match=r"leak: grading/cases/kl\.npz holds innocent"):
            check_leaks(ROOT, {**clean, "grading/cases/kl.npz": buffer.getvalue()})


def a_notebook(**cell) -> bytes:
    """The handout's notebook with one cell more."""
    notebook = json.loads(build(ROOT)[0]["HW3.ipynb"])
    code = {"cell_type": "code", "id": "more", "metadata": {}, "execution_count": None, "outputs": [], "source": []}
    notebook["cells"].append({**code, **cell})
    return json.dumps(notebook, indent=1).encode()


@pytest.mark.parametrize("file", RUBRIC.submit)
def test_a_solution_statement_in_a_notebook_is_a_leak(clean, file):
    """JSON escapes a cell's quotes and line ends, and cuts it into lines."""
    given = "".join(releasing._squeeze(content.decode("utf-8", "ignore")) for content in clean.values())
    statements = solution_statements((ROOT / file).read_text(), file)
    secret = max((s for s in statements if releasing._squeeze(s) not in given), key=len)
    lines = [f"{part}\n" for part in secret.split(" ")]
    for cell in (
        {"source": lines},
        {"cell_type": "markdown", "source": "".join(lines)},
        {"outputs": [{"output_type": "stream", "name": "stdout", "text": lines}]},
    ):
        with pytest.raises(GradingError, match=r"leak: HW3\.ipynb holds the solution statement"):
            check_leaks(ROOT, {**clean, "HW3.ipynb": a_notebook(**cell)})


def test_a_solution_statement_in_the_notebooks_source_is_a_leak(tmp_path):
    for file in (*LISTED, *(f"grading/hidden/reference/cases/{id}.npz" for id in IDS)):
        path = tmp_path / "tree" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / file).read_bytes())
    source = tmp_path / "tree" / releasing.NOTEBOOK
    statement = next(s for s in solution_statements((ROOT / "HW3/vae.py").read_text(), "HW3/vae.py") if len(s) >= 30)
    source.write_text(f"{source.read_text()}\n# %%\nanswer = {statement!r}\n")
    with pytest.raises(GradingError, match=r"leak: HW3\.ipynb holds the solution statement"):
        release(tmp_path / "out", source=tmp_path / "tree")


def test_a_hidden_file_in_a_notebook_is_a_leak(clean):
    """As an attachment or an output is written: in base64."""
    text = base64.encodebytes((ROOT / "grading/hidden/reference/cases/kl.npz").read_bytes()).decode()
    outputs = [{"output_type": "display_data", "data": {"image/png": text}, "metadata": {}}]
    with pytest.raises(GradingError, match=r"leak: HW3\.ipynb holds the hidden file .*/kl\.npz"):
        check_leaks(ROOT, {**clean, "HW3.ipynb": a_notebook(outputs=outputs)})


def hidden_array(id: str) -> np.ndarray:
    """An array of a hidden case that says something."""
    case = load_cases(HIDDEN / f"{id}.npz", hidden=True)[0]
    return next(array for array in case.expected.values() if len(np.unique(array)) >= 8)


def test_a_hidden_array_in_base64_is_a_leak(clean):
    buffer = io.BytesIO()
    np.save(buffer, hidden_array("kl"))
    packed = base64.b64encode(buffer.getvalue()).decode()
    with pytest.raises(GradingError, match=r"leak: HW3\.ipynb holds .*hidden kl\.npz"):
        check_leaks(ROOT, {**clean, "HW3.ipynb": a_notebook(source=[f'hidden = "{packed}"'])})


@pytest.mark.parametrize("id", IDS)
def test_the_numbers_of_a_hidden_array_are_a_leak(clean, id):
    """As torch prints them, with four decimals; in the notes as Python does."""
    printed = str(torch.tensor(hidden_array(id))).splitlines(keepends=True)
    outputs = [{"output_type": "execute_result", "metadata": {}, "data": {"text/plain": printed}}]
    with pytest.raises(GradingError, match=rf"leak: HW3\.ipynb holds the numbers .*hidden {id}\.npz"):
        check_leaks(ROOT, {**clean, "HW3.ipynb": a_notebook(outputs=outputs)})
    if id == "kl":
        page = "docs/notes/1-vae.md"
        with pytest.raises(GradingError, match=rf"leak: {page} holds the numbers"):
            check_leaks(ROOT, {**clean, page: clean[page] + repr(hidden_array(id).tolist()).encode()})


# -- the stripper ----------------------------------------------------------------------------------------

REGION = "    # TODO(kl): say it.\n    ### BEGIN SOLUTION\n    return 42\n    ### END SOLUTION\n"


def test_markers_in_strings_are_text():
    source = 'TEXT = """\n### BEGIN SOLUTION\n"""\n\n\ndef f():\n' + REGION + 'MORE = "### END SOLUTION"\n'
    stripped = without_solutions(source, "f.py")
    assert stripped == source.replace(
        REGION, '    # TODO(kl): say it.\n    raise NotImplementedError("TODO(kl): say it.")\n'
    )
    assert "42" not in stripped


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_survive(ending):
    source = ("def f():\n" + REGION + "\n\ndef g():\n    pass\n").replace("\n", ending)
    stripped = without_solutions(source, "f.py")
    assert stripped.count(ending) == stripped.count("\n") == source.count(ending) - 2
    assert stripped.endswith(f"    pass{ending}")
    assert without_markers(source, "f.py").count(ending) == source.count(ending) - 2


def test_form_feeds_and_odd_separators_count_as_the_tokenizer_counts():
    source = "x = 1\n\x0c\ny = '\u2028'\ndef f():\n" + REGION
    assert "42" not in without_solutions(source, "f.py")


def test_two_regions():
    source = "def f():\n" + REGION + "def g():\n" + REGION.replace("kl", "q-sample")
    assert [region.id for region in find_regions(source, "f.py")] == ["kl", "q-sample"]
    assert open_todos(without_solutions(source, "f.py")) == {"kl", "q-sample"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f():\n    # TODO(kl): x\n    ### BEGIN SOLUTION\n    return 1\n", "line 3: .* without ### END"),
        ("def f():\n    return 1\n    ### END SOLUTION\n", "line 3: .* without ### BEGIN"),
        ("def f():\n    # TODO(kl): x\n    ### BEGIN SOLUTION\n    ### BEGIN SOLUTION\n", "line 4: .* inside"),
        ("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n", "line 2: no `# TODO"),
        ("def f():\n    x = 1  ### BEGIN SOLUTION\n    ### END SOLUTION\n", "line 2: .* alone on its line"),
        ("def f(:\n    ### BEGIN SOLUTION\n", "f.py"),
    ],
)
def test_markers_that_do_not_pair_up_are_named_with_file_and_line(source, says):
    with pytest.raises(GradingError, match=says) as error:
        without_solutions(source, "f.py")
    assert "f.py" in str(error.value)


# -- working in it -----------------------------------------------------------------------------------------


def test_a_fresh_handout_waits_for_each_todo_and_for_nothing_else(handout):
    outcomes, output = self_check(handout)
    seen = set()
    for name, (outcome, message) in outcomes.items():
        assert outcome == "skipped", (name, message)
        if "test_samplers" not in name:
            seen.add(re.match(r"TODO\(([\w-]+)\): ", message)[1])
    assert seen == set(IDS)
    assert re.search(rf"total +0 / {RUBRIC.total:g}", output)


def test_the_solutions_branch_passes_everything(completed):
    outcomes, output = self_check(completed)
    assert {outcome for outcome, _ in outcomes.values()} == {"passed"}
    assert re.search(rf"total +{RUBRIC.total:g} / {RUBRIC.total:g}", output)


def test_a_syntax_error_costs_its_own_file_only(completed):
    path = completed / "HW3" / "vae.py"
    path.write_text(path.read_text() + "\ndef broken(:\n")
    outcomes, _ = self_check(completed)
    assert_lost(outcomes, r"\[(kl|reparameterize)-", "HW3/vae.py cannot be imported: SyntaxError in vae.py, line")


def test_a_deleted_file_costs_its_own_functions_only(completed):
    (completed / "HW3" / "diffusion.py").unlink()
    outcomes, _ = self_check(completed, "-k", "kl or predict or guidance")
    assert_lost(outcomes, "predict", "HW3/diffusion.py is missing")


def test_an_endless_loop_costs_one_id(completed):
    path = completed / "HW3" / "vae.py"
    stub = without_solutions((ROOT / "HW3/vae.py").read_text(), "HW3/vae.py")
    loop = "while True:\n        try:\n            sum(range(10**6))\n        except Exception:\n            pass"
    path.write_text(re.sub(r'raise NotImplementedError\("TODO\(kl\).*', loop, stub))
    conftest = completed / "grading" / "conftest.py"
    conftest.write_text(conftest.read_text().replace("SECONDS = 30", "SECONDS = 1"))
    outcomes, _ = self_check(completed, "-k", "kl or guidance")
    assert_lost(outcomes, r"\[kl-", "no answer within 1 seconds")


def test_pytest_is_itself_in_the_handout(completed):
    outcomes, _ = self_check(completed, "-k", "ddim", "-x")
    assert all("ddim" in name for name in outcomes)
    command = [sys.executable, "-m", "pytest", str(completed / "grading"), "-k", "kl"]
    elsewhere = subprocess.run(command, cwd="/", env=child_env(), capture_output=True, text=True, check=False)
    assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr


def test_a_broken_machine_is_not_a_wrong_answer(completed):
    (completed / "HW3").rename(completed / "moved")
    command = [sys.executable, "-m", "pytest", "grading/"]
    result = subprocess.run(command, cwd=completed, env=child_env(), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "the checks cannot run here: HW3 not found" in result.stdout + result.stderr


# -- todo and pack -----------------------------------------------------------------------------------------


def test_todo_follows_the_work(clone):
    fresh = grading(clone, "todo").stdout
    assert fresh.count("to do  ") == len(IDS)
    assert f"0 of {len(IDS)} written" in fresh
    git(clone, "checkout", "--quiet", "origin/solutions", "--", "HW3/vae.py")
    assert f"2 of {len(IDS)} written" in grading(clone, "todo").stdout
    (clone / "HW3" / "vae.py").write_text("def broken(:\n")
    assert grading(clone, "todo").stdout.count("unreadable") == 2


def test_pack_builds_the_zip_that_the_rubric_names(completed):
    result = grading(completed, "pack", "--name", "Ada Lovelace (2)")
    with zipfile.ZipFile(completed / "hw3-ada-lovelace-2.zip") as archive:
        assert archive.namelist() == list(RUBRIC.submit)
        for file in RUBRIC.submit:
            assert archive.read(file) == (completed / file).read_bytes()
    assert "warning" not in result.stdout
    assert re.search(rf"total +{RUBRIC.total:g} / {RUBRIC.total:g}", result.stdout)


def test_pack_warns(clone):
    git(clone, "checkout", "--quiet", "origin/solutions", "--", "HW3/diffusion.py", "HW3/vae.py")
    (clone / "HW3" / "vae.py").unlink()
    (clone / "HW3" / "data.py").write_text("# mine\n")
    path = clone / "HW3" / "diffusion.py"
    path.write_text(path.read_text() + "#" * 250_000)
    out = grading(clone, "pack", "--name", "x", "--no-check").stdout
    assert "warning: HW3/vae.py is missing" in out
    assert "warning: train_tiny_sd.py is as it was handed out" in out
    assert "warning: HW3/diffusion.py is larger than 200,000 bytes" in out
    assert "warning: HW3/data.py was changed or deleted, but is not handed in" in out
    assert "still to do: conditioning, guidance" in out


def test_pack_with_nothing_to_pack(clone):
    for file in RUBRIC.submit:
        (clone / file).unlink()
    result = grading(clone, "pack", "--name", "x", code=2)
    assert result.stderr.startswith("grading: error: none of")
    assert not list(clone.glob("*.zip"))


def test_windows_line_endings_are_no_change(clone):
    for path in (clone / "HW3" / "data.py", clone / "HW3" / "vae.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    out = grading(clone, "pack", "--name", "x", "--no-check").stdout
    assert "HW3/data.py" not in out.replace("packed", "")
    assert "warning: HW3/vae.py is as it was handed out" in out


def test_manifest_is_of_the_handout(handout):
    manifest = json.loads((handout / "grading/originals/manifest.json").read_text())
    assert set(manifest) == set(LISTED.values())

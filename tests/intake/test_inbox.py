"""Which submissions it is, and whose: by names and places, whatever students choose."""

import json
import pickle
import re
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest
from handed_in import (
    DIFFUSION,
    FUZZ,
    GOOD,
    RUBRIC,
    TINY,
    VAE,
    WHOLE,
    D,
    T,
    V,
    check,
    found_or_refused,
    handins,
    put,
    refusal,
    strays,
    summary,
    under,
    zipped,
)
from hypothesis import given
from hypothesis import strategies as st

from grading.hidden.intake import platforms
from grading.hidden.intake.inbox import Contents, find

# -- which submissions it is ------------------------------------------------------------------------------


def test_one_folder_or_zip(tmp_path):
    put(tmp_path, {**under("hw3-ada"), "hw3-Bob Ü, Jr.ZIP": WHOLE})
    assert summary([tmp_path / "hw3-ada"]) == {"hw3-ada": "ada"}
    assert summary([tmp_path / "hw3-Bob Ü, Jr.ZIP"]) == {"hw3-Bob Ü, Jr": "Bob Ü, Jr"}


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(put(tmp_path / "ada", GOOD) / "HW3")
    assert summary([".."]) == {"ada": "ada"}
    monkeypatch.chdir(tmp_path)
    assert summary([Path("ada/")]) == {"ada": "ada"}


def test_folder_of_submissions(tmp_path):
    files = {
        **{"ada.zip": WHOLE, "eve.rar": b"Rar!\x1a\x07", "eva.tar.gz": b"\x1f\x8b\x08", "empty": None},
        **under("bob"),
        **under("cyd/hw3-cyd"),
        "dee/hw3.zip": WHOLE,
        **{".DS_Store": b"", "._ada.zip": b"", "__MACOSX/._ada.zip": b"", "README.md": b"", "grades.csv": b""},
        **{".git/config": b"", "old/grades.csv": b"", "old/summary.html": b"", "old/ada/results.json": b""},
        **{"out/ada/results.json": b"", ".cache/x.zip": b""},
    }
    inbox = find([put(tmp_path / "inbox", files)], RUBRIC, out=tmp_path / "inbox" / "out")
    assert dict(inbox.strays) == {
        **dict.fromkeys(("README.md", "grades.csv"), "is neither a folder nor a zip"),
        **{"old": "holds the results of a run", ".cache": "is hidden"},
    }
    assert inbox.given == 7 + 4
    found = inbox.handins
    assert [handin.name for handin in found] == ["ada", "bob", "cyd", "dee", "empty", "eva", "eve"]
    read = {handin.name: handin.read(RUBRIC) for handin in found}
    assert all(read[name] == Contents(GOOD, [], False) for name in ("ada", "bob", "cyd", "dee"))
    assert read["empty"] == Contents({}, [f"{file} is missing." for file in RUBRIC.submit], False)
    assert "Hand in a zip; eve.rar is a .rar." in read["eve"].notes
    assert read["eve"].unreadable
    assert pickle.loads(pickle.dumps(found))[0].read(RUBRIC) == read["ada"]


def test_folder_of_one_student(tmp_path):
    assert summary([put(tmp_path / "one", under("ada"))]) == {"ada": "ada"}
    assert summary([put(tmp_path / "zip", {"ada.zip": WHOLE})]) == {"ada": "ada"}
    assert summary([put(tmp_path / "deep", under("ada/hw3"))]) == {"ada": "ada"}


def test_several_paths_are_like_one_folder(tmp_path):
    """What a shell makes of inbox/*: a folder around one student's files is the student's, also when it is empty."""
    inbox = put(tmp_path / "inbox", {**under("ada/hw3"), **under("bob"), "cyd.zip": WHOLE, "dee": None, "e.7z": b"7z"})
    put(inbox, {"fay/hw3.zip": WHOLE, "grades.csv": b"", ".DS_Store": b""})
    names = {name: name for name in ("ada", "bob", "cyd", "dee", "e", "fay")}
    assert summary([inbox]) == summary(sorted(inbox.iterdir())) == names
    put(tmp_path / "more", {**under("x"), **under("y")})
    assert summary([tmp_path / "more", inbox / "bob"]) == {"bob": "bob", "x": "x", "y": "y"}
    assert summary([inbox / "bob", inbox / "bob"]) == {"bob": "bob"}


def test_a_students_zip_cannot_pose_as_a_bulk_download(tmp_path):
    bulk = zipped({"bob_1_1000_a.zip": WHOLE, "cyd_2_1001_a.zip": WHOLE})
    put(tmp_path, {"ada.zip": WHOLE, "eve.zip": bulk})
    assert summary([tmp_path / "ada.zip", tmp_path / "eve.zip"]) == {"ada": "ada", "eve": "eve"}
    assert summary([tmp_path]) == {"ada": "ada", "eve": "eve"}
    put(tmp_path, {"x/own.zip": zipped({**under("hw3"), "data.zip": b"", "more.zip": b""})})
    assert summary([tmp_path / "x" / "own.zip"]) == {"own": "own"}


def test_holds_none(tmp_path):
    put(tmp_path, {"empty": None, "stray/notes.txt": b"", "stray/sub/x": b"", "notes.txt": b""})
    assert "does not exist" in refusal([tmp_path / "no"])
    assert "does not exist" in refusal([tmp_path / "nul\0"])
    assert "holds no submission" in refusal([tmp_path / "empty"])
    assert "holds no submission" in refusal([tmp_path / "stray"])
    assert "neither a folder nor a zip" in refusal([tmp_path / "notes.txt"])
    assert "no submission" in refusal([])


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"vae.py": V, "ada.zip": WHOLE, "bob.zip": WHOLE}, ["ada", "bob"]),
        ({**under("HW3", {"vae.py": V}), "ada.zip": WHOLE, **under("bob")}, ["HW3", "ada", "bob"]),
        ({**under("hw3", {"VAE.py": V}), **under("ada"), **under("bob")}, ["ada", "bob", "hw3"]),
        ({**under("HW3"), "ada.zip": WHOLE, "bob.zip": WHOLE}, ["HW3", "ada", "bob"]),
        ({**under("HW3"), **under("hw3"), "ada.zip": WHOLE, **under("bob")}, ["HW3", "ada", "bob", "hw3-2"]),
    ],
)
def test_no_entry_makes_one_submission_of_a_class(tmp_path, files, names):
    inbox = find([put(tmp_path / "inbox", files)], RUBRIC)
    assert [handin.name for handin in inbox.handins] == names
    assert all(handin.read(RUBRIC).files for handin in inbox.handins)
    loose = {"vae.py": "lies loose: put it into a folder or a zip of its student's"}
    assert dict(inbox.strays) == (loose if "vae.py" in files else {})


def test_what_could_be_a_submission_or_several_is_refused(tmp_path):
    put(tmp_path / "ada", {**GOOD, "data/x.npy": b"", "result/vae/a.png": b"", ".git/HW3/vae.py": b""})
    assert summary([tmp_path / "ada"]) == {"ada": "ada"}
    put(tmp_path / "ada", under("grading/originals"))  # the handout's own copies
    assert summary([tmp_path / "ada"]) == {"ada": "ada"}
    put(tmp_path / "ada", {"hw3-ada.zip": WHOLE})
    message = refusal([tmp_path / "ada"])
    assert "holds HW3/vae.py, and what could be other submissions (hw3-ada.zip)" in message
    assert "--bulk" in message
    assert "--bulk" in refusal([put(tmp_path / "two", {"HW3/vae.py": V, "hw3/vae.py": V})])
    assert summary([tmp_path / "ada"], bulk=True) == {
        name: name.removeprefix("hw3-") for name in ("HW3", "data", "grading", "hw3-ada", "result")
    }
    put(tmp_path / "export" / "inner", {"a_1_1000_x.zip": WHOLE, "b_2_1001_x.zip": WHOLE})
    assert "name inner instead" in refusal([tmp_path / "export"])
    assert summary([tmp_path / "export"], bulk=True) == {"inner": "inner"}
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "all.zip").write_bytes(zipped({"a_1_1000_x.zip": WHOLE, "b_2_1001_x.zip": WHOLE}))
    assert "name all.zip instead" in refusal([tmp_path / "downloads"])
    zips = zipped({f"{i}.zip": WHOLE for i in range(3)})
    (tmp_path / "zips.zip").write_bytes(zips)
    message = refusal([tmp_path / "zips.zip"])
    assert "3 archives" in message
    assert summary([tmp_path / "zips.zip"], bulk=True) == {"0": "0", "1": "1", "2": "2"}
    assert summary([tmp_path / "zips.zip"], platform="plain") == {"zips": "zips"}
    assert "is not a zip" in refusal([*put(tmp_path / "text", {"a.zip": b"text"}).iterdir()], bulk=True)
    assert "cannot be both" in refusal([tmp_path / "ada"], out=tmp_path / "ada")


@pytest.mark.parametrize("around", ["", "class/"])
def test_a_zip_of_students_folders_is_not_taken_for_one_submission(tmp_path, around):
    names = ("ada", "bob", "eve")
    put(tmp_path, {"class.zip": zipped({f"{around}{name}/{file}": V for name in names for file in ("HW3/vae.py",)})})
    message = refusal([tmp_path / "class.zip"])
    assert all(word in message for word in (*names, "--bulk", "--platform plain"))
    assert summary([tmp_path / "class.zip"], bulk=True) == {name: name for name in names}
    assert summary([tmp_path / "class.zip"], platform="plain") == {"class": "class"}


def test_a_folder_of_folders_among_others_is_not_several_students(tmp_path):
    """`inbox/*` of a shell, where mallory handed in folders that are called like others."""
    put(tmp_path, {**under("in/ada"), **under("in/mallory/bob"), **under("in/mallory/cyd"), "in/bob.zip": WHOLE})
    assert "name the folder in which they lie" in refusal(sorted((tmp_path / "in").iterdir()))
    assert summary([tmp_path / "in"]) == {name: name for name in ("ada", "bob", "mallory")}


def test_nothing_is_unwrapped_inside_an_inbox(tmp_path):
    """Whatever a student's folder or zip looks like inside, it is one submission, of its own name."""
    canvas = {"bob_1_1000_a.zip": WHOLE, "cyd_2_1001_a.zip": WHOLE}
    export = {"submission_metadata.yml": METADATA.encode(), **under("submission_456"), **under("submission_457")}
    moodle = {**under("Bob_1_assignsubmission_file_"), **under("Cyd_2_assignsubmission_file_")}
    for number, inside in enumerate((canvas, export, moodle, {"bob.zip": WHOLE, "cyd.zip": WHOLE})):
        inbox = put(tmp_path / str(number), {"ada.zip": WHOLE, **under("mallory", inside), "eve.zip": zipped(inside)})
        assert summary([inbox]) == {"ada": "ada", "eve": "eve", "mallory": "mallory"}
    pair = put(tmp_path / "pair", under("mallory", {"bob.zip": WHOLE, "cyd.zip": WHOLE}))
    assert summary([pair]) == {"mallory": "mallory"}
    metadata = b"ada:\n  :submitters:\n  - :sid: 1815\n"
    own = put(tmp_path / "own", {"submission_metadata.yml": metadata, "ada.zip": WHOLE})
    assert summary([own]) == {"ada": "ada"}
    assert strays([own]) == {"submission_metadata.yml": "belongs to no export of Gradescope's"}
    metadata = metadata.replace(b"ada", b"submission_1")
    (tmp_path / "mallory.zip").write_bytes(zipped({"submission_metadata.yml": metadata, **under("submission_1")}))
    assert summary([tmp_path / "mallory.zip"]) == {"mallory": "mallory"}


@pytest.mark.parametrize("name", [".zip", "..zip", "...zip", "grades.csv.zip", "Summary.HTML.zip", "a\\b.zip"])
def test_names_that_cannot_be_a_folder(tmp_path, name):
    put(tmp_path / "inbox", {name: WHOLE, "ada.zip": WHOLE})
    other, ada = sorted(handins([tmp_path / "inbox"]), key=lambda handin: handin.name == "ada")
    expected = {"g": "grades.csv-2", "S": "Summary.HTML-2", "a": "a_b"}.get(name[0], "unnamed")
    assert (other.name, ada.name) == (expected, "ada")
    assert [note.split(":")[0] for note in other.read(RUBRIC).notes] == [f"This submission is called {expected}"]
    assert ada.read(RUBRIC).notes == []
    assert [handin.name for handin in handins([tmp_path / "inbox" / name])] == [expected]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_of_the_same_name(tmp_path):
    put(tmp_path, {**under("a/ada"), **under("b/Ada"), "c/ada.zip": WHOLE, **under("a/ada-2"), **under("b/y")})
    found = handins([tmp_path / "a", tmp_path / "b", tmp_path / "c" / "ada.zip"])
    assert [handin.name for handin in found] == ["Ada-3", "ada", "ada-2", "ada-4", "y"]
    notes = {handin.name: handin.read(RUBRIC).notes for handin in found}
    assert [note.split(":")[0] for note in notes["Ada-3"]] == ["This submission is called Ada-3"]
    assert notes["ada"] == notes["ada-2"] == notes["y"] == []
    put(tmp_path, {**under("d/ad\u00e9"), "e/ade\u0301.zip": WHOLE})  # one letter in two spellings
    found = handins([tmp_path / "d" / "ad\u00e9", tmp_path / "e" / "ade\u0301.zip"])
    assert [handin.name for handin in found] == ["ade\u0301-2", "ad\u00e9"]
    both = find([put(tmp_path / "f", {"ada.zip": WHOLE, **under("ada")})], RUBRIC)
    assert both.in_two_rows() == {"ada": ["ada", "ada-2"]}
    (tmp_path / "g.zip").write_bytes(zipped([("ada.zip", WHOLE), ("ada.zip", b"other"), ("bob.zip", WHOLE)]))
    assert [handin.name for handin in handins([tmp_path / "g.zip"], bulk=True)] == ["ada", "ada-2", "bob"]


ALIKE = [
    ("ada", "ADA"),
    ("straße", "STRASSE"),
    ("ad\u00e9", "ADE\u0301"),
    ("ı", "I"),  # one capital
    ("ﬁ", "fi"),
    ("ada", "ada."),  # Windows' shares drop what stands at the end
    ("ada", "ada "),
    ("می\u200cرا", "میرا"),  # HFS+ does not see joiners
    ("grades.csv.", "Grades.csv"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_that_some_file_system_takes_for_one(tmp_path, one, other):
    put(tmp_path, {f"a/{one}.zip": WHOLE, f"b/{other}.zip": WHOLE})
    names = summary([tmp_path / "a" / f"{one}.zip", tmp_path / "b" / f"{other}.zip"])
    assert len(names) == 2
    assert not any(names.keys() <= {each, *(f"{each}{end}" for end in ". ")} for each in (one, other))
    assert sum(bool(re.search(r"-\d$", name)) for name in names) == (2 if "csv" in one else 1)


def test_long_and_odd_names(tmp_path):
    names = ["ü" * 120 + ".zip", "=1+1, a\nb\x1b.zip", " ada .zip", "می\u200cرا.zip"]
    assert [handin.name for handin in handins([put(tmp_path / "in", dict.fromkeys(names, WHOLE))])] == [
        *(" ada ", "=1+1, a\ufffdb\ufffd", "ü" * 100, "می\u200cرا")
    ]


# -- layouts ----------------------------------------------------------------------------------------------

METADATA = """---
submission_456:
  :submitters:
  - :name: "Ada \\e[31m & <b>"
    :sid: '00123'
    :email: ada@x.edu
  :created_at: 2024-13-45 99:99:99 Z
  :results: !ruby/object:Evil
    tests: [{output: "*x &y !!python/object/apply:os.system [id]"}]
submission_457:
  :submitters:
  - :name: Bob
    :sid:
    :email: bob@x.edu
  - :name: Cyd
    :sid: "7"
submission_458:
  :submitters: []
submission_459:
  :submitters:
  - :sid: 0o17
oddity: [1, 2]
"""
CANVAS_LOOSE = {
    "lovelaceada_LATE_12345_678901_vae.py": V,
    "lovelaceada_LATE_12345_678902_diffusion-2.py": D,
    "lovelaceada_LATE_12345_678903_train_tiny_sd-1.py": T,
}
LAYOUTS = {
    "canvas": (
        {
            "lovelaceada_12345_678901_hw3-ada.zip": WHOLE,
            "mcodd_x_LATE_22_678902_hw3_1_2-1.zip": WHOLE,
            "noor_23_678903_report.pdf": b"%PDF",
            "raro_24_678904_hw3.rar": b"Rar!",
            "two_25_678905_hw3.zip": WHOLE,
            "two_25_678906_screen.png": b"png",
            "typed_26_text.html": b"",
            **{name.replace("lovelaceada_LATE_12345_6789", "loose_27_6790"): c for name, c in CANVAS_LOOSE.items()},
        },
        {
            "lovelaceada_12345_678901_hw3-ada": "12345",
            "mcodd_x_LATE_22_678902_hw3_1_2-1": "22",
            "noor_23": "23",
            "raro_24_678904_hw3": "24",
            "two_25_678905_hw3": "25",
            "typed_26": "26",
            "loose_27": "27",
        },
    ),
    "canvas loose": (CANVAS_LOOSE, {"lovelaceada_LATE_12345": "12345"}),
    "canvas anonymous": (
        {"anon_a1B2c_678901_hw3.zip": WHOLE, "LATE_anon_Zz9zz_678902_hw3.zip": WHOLE},
        {"anon_a1B2c_678901_hw3": "a1B2c", "LATE_anon_Zz9zz_678902_hw3": "Zz9zz"},
    ),
    "not canvas": (
        {"hw3_2024_101_ada.zip": WHOLE, "hw3_2024_101_bob.zip": WHOLE},
        {"hw3_2024_101_ada": "hw3_2024_101_ada", "hw3_2024_101_bob": "hw3_2024_101_bob"},
    ),
    "not canvas either": (
        {"lab_3_01_ada.zip": WHOLE, "lab_3_02_bob.zip": WHOLE},
        {"lab_3_01_ada": "lab_3_01_ada", "lab_3_02_bob": "lab_3_02_bob"},
    ),
    "moodle": (
        {
            "Ada Lovelace_1234567_assignsubmission_file_/hw3.zip": WHOLE,
            "Ada Lovelace_1234567_assignsubmission_onlinetext_/onlinetext.html": b"",
            **under("Bob O_Neil_12_assignsubmission_file_"),
            "Cyd, Jr._13_assignsubmission_file/vae.py": V,
            "Dee_14_assignsubmission_onlinetext_/onlinetext.html": b"",
            "Eve_15_assignsubmission_file_": None,
        },
        {
            "Ada Lovelace_1234567_assignsubmission_file_": "1234567",
            "Bob O_Neil_12_assignsubmission_file_": "12",
            "Cyd, Jr._13_assignsubmission_file": "13",
            "Dee_14_assignsubmission_onlinetext_": "14",
            "Eve_15_assignsubmission_file_": "15",
        },
    ),
    "moodle flat": (
        {
            "Ada Lovelace_1234567_assignsubmission_file_hw3.zip": WHOLE,
            "Bob_12_assignsubmission_file_vae.py": V,
            "Bob_12_assignsubmission_file_diffusion.py": D,
            "Bob_12_assignsubmission_file_train_tiny_sd.py": T,
            "Eve_13_assignsubmission_file_Ada_7_assignsubmission_file_.zip": WHOLE,  # the student chose the end of it
        },
        {
            "Ada Lovelace_1234567_assignsubmission_file_hw3": "1234567",
            "Bob_12_assignsubmission_file_": "12",
            "Eve_13_assignsubmission_file_Ada_7_assignsubmission_file_": "13",
        },
    ),
    "gradescope": (
        {"submission_metadata.yml": METADATA.encode(), **under("submission_456"), "submission_457/hw3.zip": WHOLE},
        {
            "submission_456": "00123",
            "submission_457": "bob@x.edu;7",
            "submission_458": "submission_458",
            "submission_459": "0o17",
        },
    ),
    "pack": (
        {"hw3-ada-lovelace.zip": WHOLE, "hw3-bob.zip": WHOLE},
        {"hw3-ada-lovelace": "ada-lovelace", "hw3-bob": "bob"},
    ),
}


@pytest.mark.parametrize("where", ["folder", "paths", "zip", "zip with a folder", "told"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout, where):
    files, expected = LAYOUTS[layout]
    platform = layout.split()[0] if not layout.startswith(("not", "pack")) else "plain"
    options = {"platform": platform} if where == "told" else {}
    if where.startswith("zip"):
        named = {name + ("/" if content is None else ""): content or b"" for name, content in files.items()}
        named["__MACOSX/._x.zip"] = b""
        (tmp_path / "a.zip").write_bytes(zipped(named if where == "zip" else under("export", named)))
        paths, options = [tmp_path / "a.zip"], {"bulk": platform == "plain"}
    else:
        folder = put(tmp_path / "export" / "inner", files)
        put(folder, {"README": b"", ".DS_Store": b""} if where == "folder" else {})
        paths = sorted(folder.iterdir()) if where == "paths" else [folder]
    inbox = find(paths, RUBRIC, **options)
    assert dict(inbox.strays) == ({"README": "is neither a folder nor a zip"} if where == "folder" else {})
    assert inbox.platforms == ([platform] if platform != "plain" else [])
    found = inbox.handins
    assert {handin.name: handin.student for handin in found} == expected
    assert [handin.name for handin in found] == sorted(expected)
    if where != "paths" and not where.startswith("zip") and platform != "plain":
        assert "name inner instead" in refusal([folder.parent])
    read = {handin.name: handin.read(RUBRIC) for handin in pickle.loads(pickle.dumps(found))}
    for name, contents in read.items():
        check(contents, tmp_path)
        empty = re.match(r"noor|raro|typed|Dee|Eve_15|Cyd|submission_45[89]", name)
        assert bool(empty) != (contents.files == GOOD), name
    if layout == "canvas":
        assert read["raro_24_678904_hw3"].unreadable
        assert "Hand in a zip; hw3.rar is a .rar." in read["raro_24_678904_hw3"].notes
        assert "Hand in a zip; report.pdf is a .pdf." in read["noor_23"].notes


# -- names that students choose ---------------------------------------------------------------------------

# What courses ask for, or get. Each line is an inbox; every archive in it is somebody's.
HABITS = [
    "hw3_2024_1001_ada.zip hw3_2024_1002_bob.zip",
    "hw3_2024_1001_ada.zip hw3_2024_1001_ada(1).zip hw3_2024_1002_bob.zip",
    "hw3_2024_101_ada.zip hw3_2024_101_bob.zip hw3_2024_102_cyd.zip",
    "hw3_1_1001_ada.zip hw3_2_1002_bob.zip hw3_1_1003_cyd.zip",  # sections
    "sec1_2024_1001_ada.zip sec2_2024_1002_bob.zip",
    "1001_ada.zip 1002_bob.zip",
    "1001.zip 1002.zip",
    "ada_1001_hw3.zip bob_1002_hw3.zip",
    "ada_1001_2024_hw3.zip bob_1002_2024_hw3.zip",
    "Lovelace_Ada_12345_678901_hw3.zip Noyce_Bob_12346_678902_hw3.zip",
    "lovelace_ada_12345_678901_hw3.zip",
    "2024-hw3-ada.zip 2024-hw3-bob.zip",
    "2024-10-01_12-30-59_ada.zip 2024-10-01_12-31-00_bob.zip",
    "20241001_1001_ada_hw3.zip 20241001_1002_bob_hw3.zip",
    "hw3.zip hw3(1).zip hw3(2).zip",
    "hw3-1.zip hw3-2.zip hw3-3.zip",
    "HW3_ADA.ZIP HW3_BOB.Zip hw3_cyd.zip",
    "ada@example.edu.zip bob@example.edu.zip ada@example.org.zip",
    "ada.lovelace.zip ada.king.zip ada.zip",
    "ada_bob.zip cyd_dee.zip group_1.zip group_12.zip",
    "team7_ada_bob_1001_1002.zip team8_cyd_dee_1003_1004.zip",
    "ада.zip अदा.zip 艾达.zip ądą.zip",
    "a.tar.gz b.tgz c.rar d.7z e.zip",
    "hw3-ada.zip hw3-bob.zip hw3.zip",
    "s1001_hw3_v2_final_2.zip s1002_hw3_v2_final_3.zip",
    "1001_1_hw3.zip 1001_2_hw3.zip 1002_1_hw3.zip",  # attempts
]


@pytest.mark.parametrize("kind", ["archives", "folders", "both"])
@pytest.mark.parametrize("habit", HABITS)
def test_habits(tmp_path, habit, kind):
    """As many rows as there are archives or folders, called as they are."""
    archives = [name.replace("(", " (") for name in habit.split()]
    stems = [platforms.stem(name) for name in archives]
    files = dict.fromkeys(archives, WHOLE) if kind != "folders" else {}
    for name in stems if kind != "archives" else []:
        files |= under(f"{name}.d" if kind == "both" else name)
    inbox = find([put(tmp_path / "inbox", files)], RUBRIC)
    expected = stems if kind != "both" else [*stems, *(f"{name}.d" for name in stems)]
    assert [handin.name for handin in inbox.handins] == sorted(expected)
    assert [handin.student.removeprefix("hw3-") for handin in inbox.handins] == [
        handin.name.removeprefix("hw3-") for handin in inbox.handins
    ]
    assert (inbox.strays, inbox.platforms, inbox.given) == ([], [], len(expected))
    for handin in inbox.handins:
        is_zip = kind == "folders" or handin.name not in ("a", "b", "c", "d")
        assert handin.read(RUBRIC).files == (GOOD if is_zip else {})


CANVAS = {f"student{i}_{i}_{i + 1000}_hw3.zip": WHOLE for i in range(101, 109)}
MOODLE = {f"Student {i}_{i}_assignsubmission_file_hw3.zip": WHOLE for i in range(101, 109)}
MOODLE_FOLDERS = {f"Student {i}_{i}_assignsubmission_file_/hw3.zip": WHOLE for i in range(101, 109)}


@pytest.mark.parametrize(
    ("export", "upload", "students"),
    [
        (CANVAS, {"mallory_7_2000_x_111_assignsubmission_file_y.zip"}, ["7"]),
        (CANVAS, {"mallory_7_2000_x_101_1101_hw3.zip"}, ["7"]),
        (CANVAS, {f"mallory_7_{2000 + i}_hw3.zip" for i in range(30)}, ["7"] * 30),
        (CANVAS, {f"x_7_1999_{2000 + i}_hw3.zip" for i in range(30)}, ["7"] * 30),  # who is called x_7
        (CANVAS, {"student101_101_1999_2000_hw3.zip"}, ["101"]),  # who is called student101_101
        (CANVAS, {"mallory_7_2000_submission_metadata.yml"}, ["7"]),
        (MOODLE, {"Mallory_7_assignsubmission_file_Student 101_101_assignsubmission_file_.zip"}, ["7"]),
        (MOODLE, {"Student 101 101 assignsubmission file x_7_assignsubmission_file_hw3.zip"}, ["7"]),
        (MOODLE_FOLDERS, {"Student 101_101_assignsubmission_file_ x_7_assignsubmission_file_/a.zip"}, ["7"]),
        (MOODLE_FOLDERS, {"x_7_assignsubmission_file_/Student 101_101_assignsubmission_file_/hw3.zip"}, ["7"]),
        ({f"{name}{i}.zip": WHOLE for i, name in enumerate("abc")}, {"x_111_assignsubmission_file_y.zip"}, None),
        ({f"{name}{i}.zip": WHOLE for i, name in enumerate("abc")}, {"lovelaceada_12345_678901_hw3.zip"}, None),
    ],
)
def test_one_student_decides_nothing_for_the_others(tmp_path, export, upload, students):
    def named(files):
        return {platforms.stem(name.split("/")[0]).partition("_2000_submission")[0] for name in files}

    alone = find([put(tmp_path / "alone", export)], RUBRIC)
    inbox = find([put(tmp_path / "inbox", {**export, **dict.fromkeys(upload, WHOLE)})], RUBRIC)
    rows = {handin.name: handin.student for handin in inbox.handins}
    assert {name: rows[name] for name in named(export)} == {handin.name: handin.student for handin in alone.handins}
    own = named(upload)
    assert [rows[name] for name in sorted(own)] == (students or sorted(own))
    assert (len(rows), inbox.strays) == (len(named(export)) + len(own), [])
    theirs = {handin.name: handin.pieces for handin in inbox.handins if handin.name in named(export)}
    assert all(len(pieces) == 1 for pieces in theirs.values())


def test_who_takes_anothers_canvas_name_adds_nothing_to_their_files(tmp_path):
    """Who is called lovelaceada_12345 gets names that begin like those of the files of user 12345."""
    own = {f"lovelaceada_12345_67890{i}_{name}": V for i, name in enumerate(("vae.py", "diffusion.py"))}
    false = {"lovelaceada_12345_77_9_hw3.zip": WHOLE, "lovelaceada_12345_4242_6790_hw3.zip": WHOLE}
    false |= {"lovelaceada_12345_4242_6791_train_tiny_sd.py": T}
    found = handins([put(tmp_path, {**own, **false, **CANVAS})])
    ada = {handin.name: handin for handin in found}["lovelaceada_12345"].read(RUBRIC)
    assert ada.files == {VAE: V, DIFFUSION: V}


def test_what_the_instructor_adds_to_an_export_is_graded(tmp_path):
    inbox = find([put(tmp_path, {**CANVAS, "late-bob.zip": WHOLE, **under("cyd"), "notes.txt": b""})], RUBRIC)
    assert inbox.platforms == ["canvas"]
    assert {handin.name: handin.student for handin in inbox.handins if handin.name in ("late-bob", "cyd")} == {
        "late-bob": "late-bob",
        "cyd": "cyd",
    }
    assert [name for name, _ in inbox.strays] == ["notes.txt"]
    assert len(inbox.handins) == len(CANVAS) + 2


def test_platform_is_what_the_instructor_says(tmp_path):
    one = put(tmp_path / "one", {"lovelace_ada_12345_678901_hw3.zip": WHOLE})
    assert summary([one]) == {"lovelace_ada_12345_678901_hw3": "lovelace_ada_12345_678901_hw3"}
    assert summary([one], platform="canvas") == {"lovelace_ada_12345_678901_hw3": "12345"}
    assert summary([put(tmp_path / "all", CANVAS)], platform="plain") == {
        platforms.stem(name): platforms.stem(name) for name in CANVAS
    }
    assert "--platform moodle" in refusal([tmp_path / "all"], platform="moodle")
    assert "--platform gradescope" in refusal([tmp_path / "all"], platform="gradescope")


def test_those_in_no_moodle_team_have_no_number(tmp_path):
    put(tmp_path, {**under("Team A_7_assignsubmission_file_"), **under("Default group_assignsubmission_file_")})
    assert sorted(summary([tmp_path]).values()) == ["7", "Default group"]


def test_one_moodle_folder(tmp_path):
    folder = put(tmp_path / "Ada L_77_assignsubmission_file_", {"hw3.zip": WHOLE})
    assert summary([folder]) == {folder.name: "77"}


@pytest.mark.parametrize("extra", [{}, {"ada_1_1003_x.png": b""}, {"ada_1_1003_vae.py": b"loose"}])
def test_two_zips_of_one_student(tmp_path, extra):
    put(tmp_path, {"ada_1_1000_a.zip": WHOLE, "ada_1_1001_b.zip": zipped({VAE: b"other"}), **extra})
    put(tmp_path, {"bob_2_1002_a.zip": WHOLE, "cyd_3_1004_a.zip": WHOLE})
    inbox = find([tmp_path], RUBRIC)
    own = {"ada_1_1000_a": V, "ada_1_1001_b": b"other"} | ({"ada_1": b"loose"} if b"loose" in extra.values() else {})
    found = {handin.name: handin.read(RUBRIC).files[VAE] for handin in inbox.handins}
    assert found == {**own, "bob_2_1002_a": V, "cyd_3_1004_a": V}
    assert inbox.in_two_rows() == {"1": sorted(own)}
    assert inbox.given == 4 + len(extra)
    assert inbox.strays == []


def test_classroom(tmp_path):
    def clone(name):
        return {**under(name), f"{name}/.git/config": b"", f"{name}/.git/HW3/vae.py": b""}

    names = ["hw3-ada-lovelace", "hw3-ada-x", "hw3-bob"]
    folder = put(tmp_path / "clones", {k: v for name in names for k, v in clone(name).items()})
    students = {"hw3-ada-lovelace": "ada-lovelace", "hw3-ada-x": "ada-x", "hw3-bob": "bob"}
    assert summary([folder]) == summary(sorted(folder.iterdir())) == students
    folder = put(tmp_path / "lab-3-submissions", clone("lab-3-ada-x") | clone("lab-3-ada-y"))
    assert summary([folder]) == {"lab-3-ada-x": "ada-x", "lab-3-ada-y": "ada-y"}
    plain = put(tmp_path / "plain", under("lab-ada") | under("lab-bob"))  # no clones: nothing is known to be a prefix
    assert summary([plain]) == {"lab-ada": "lab-ada", "lab-bob": "lab-bob"}


DAMAGED = ["{", "- 1", "", "a: 1\n---\nb: 2\n", "\0", "a: &a [*a", "a: *a", b"\xff\xff", "? [1]\n: 2"]
# Each of these ended the process: PyYAML's loaders call themselves for every level.
DAMAGED += ["[" * 3000, "[" * 900 + "]" * 900, "[" * 200_000, "- " * 200_000, "{a: " * 200_000, "? " * 200_000]
DAMAGED += ["submission_1: 1\nsubmission_1: 2\n", "submission_1: {:submitters: [], :submitters: [{:sid: '1'}]}"]


@pytest.mark.parametrize("text", DAMAGED, ids=[str(text[:20]) for text in DAMAGED])
def test_damaged_gradescope_metadata(tmp_path, text):
    content = text if isinstance(text, bytes) else text.encode()
    put(tmp_path, {"submission_metadata.yml": content, **under("submission_1")})
    message = refusal([tmp_path])
    assert message.startswith(platforms.METADATA)
    assert len(message) < 400


def test_gradescope_metadata_that_multiplies_costs_little(tmp_path, monkeypatch):
    names = "abcdefghijklmnopqrst"
    laughs = "z: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(names))
    person = "someone: &s {':sid': 'x'}\n"
    crowd = f"submission_1: {{':submitters': [{', '.join(['*s'] * 50_000)}]}}\n"
    put(tmp_path, {"submission_metadata.yml": (laughs + person + crowd).encode(), **under("submission_1")})
    start = time.process_time()
    [student] = summary([tmp_path]).values()
    assert time.process_time() - start < 5
    assert student == ";".join("x" * platforms.MAX_GROUP)
    monkeypatch.setattr(platforms, "MAX_EVENTS", 1000)
    put(tmp_path, {"submission_metadata.yml": b"a: [" + b"1," * 1000 + b"]"})
    assert "more than Gradescope writes" in refusal([tmp_path])


def test_who_chooses_a_sid_of_several_is_no_group(tmp_path):
    """On Gradescope students write their id themselves."""
    people = {
        "submission_1": [{":sid": "1815", ":email": "ada@x.edu"}],
        "submission_2": [{":sid": "7;1815", ":email": "mallory@x.edu"}],
        "submission_3": [{":sid": "9", ":email": "eve@x.edu"}, {":sid": "9;1815", ":email": "a;b@x.edu"}],
        "submission_4": [{":sid": "9" * 300, ":email": "x" * 300}],
        "submission_5": [{":sid": "1815"}, {":sid": "10"}],
    }
    metadata = json.dumps({name: {":submitters": who} for name, who in people.items()})
    put(tmp_path, {"submission_metadata.yml": metadata.encode(), **{k: v for n in people for k, v in under(n).items()}})
    inbox = find([tmp_path], RUBRIC)
    students = {handin.name[-1]: handin.student for handin in inbox.handins}
    assert students == {"1": "1815", "2": "mallory@x.edu", "3": "9", "4": "submission_4", "5": "1815;10"}
    assert inbox.in_two_rows() == {"1815": ["submission_1", "submission_5"]}


def test_a_zip_of_very_many_folders_is_read_in_time(tmp_path):
    """It was a minute for 20,000, as each was compared with each other."""
    (tmp_path / "mallory.zip").write_bytes(zipped({f"{i:x}/x": b"" for i in range(10_000)}))
    start = time.process_time()
    assert summary([tmp_path / "mallory.zip"]) == {"mallory": "mallory"}
    assert time.process_time() - start < 4


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([f"{i:x}/HW3/vae.py" for i in range(6_001)], "lists 6,001 files, too many for one submission"),
        ([f"{i:x}" for i in range(6_001)], "lists 6,001 files"),
        ([f"{i:x}/HW3/vae.py" for i in range(6_000)], "holds the same files in several folders (0, 1, 10 and 5997"),
        ([f"x_{i}_assignsubmission_file_/vae.py" for i in range(2_001)], "holds 2,001 submissions: say --bulk"),
    ],
)
def test_a_zip_of_very_many_files_is_refused_in_time(tmp_path, monkeypatch, names, says):
    monkeypatch.setattr("grading.hidden.intake.inbox.MAX_MEMBERS", 6_000)
    (tmp_path / "mallory.zip").write_bytes(zipped(dict.fromkeys(names, b"")))
    start = time.process_time()
    message = refusal([tmp_path / "mallory.zip"])
    assert time.process_time() - start < 3
    assert says in message
    assert "--bulk" in message
    assert len(message) < 400


def test_a_thousand_submissions(tmp_path):
    inner = zipped(GOOD)
    (tmp_path / "all.zip").write_bytes(zipped({f"s{i}_{i}_{i + 1000}_hw3.zip": inner for i in range(1000)}))
    start = time.perf_counter()
    found = handins([tmp_path / "all.zip"])
    assert len(found) == 1000
    assert all(handin.read(RUBRIC).files == GOOD for handin in found)
    assert time.perf_counter() - start < 10


# -- fuzzing ----------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["hw3", "ada", "2024", "1001", "7", "LATE", "assignsubmission", "file", "Ü", "", " ", "~"])
NAMES = st.tuples(
    st.lists(WORDS, min_size=1, max_size=6).map("_".join), st.sampled_from([".zip", ".ZIP", ".py", "", ".txt", ".rar"])
).map("".join)
NAMES |= st.sampled_from(["HW3", "vae.py", "x_1_1000_vae.py", "x_1_1001_diffusion.py", "grades.csv", ".zip", ".x"])


@FUZZ
@given(st.dictionaries(NAMES.filter(bool), st.booleans(), max_size=8), st.sampled_from(["folder", "zip", "paths"]))
def test_everything_given_is_accounted_for(tree, where):
    """Each entry is part of one row or in the list of the others, and each folder and archive has a row of its own."""
    files = {name: None if is_folder else WHOLE for name, is_folder in tree.items()} | {"z.zip": WHOLE}
    with tempfile.TemporaryDirectory() as folder:
        root = put(Path(folder, "root"), files)
        paths, options = [root], {"bulk": True}
        if where == "zip":
            members = {name + ("/" if content is None else ""): content or b"" for name, content in files.items()}
            paths = [Path(folder, "a.zip")]
            paths[0].write_bytes(zipped(members))
        elif where == "paths":
            paths, options = sorted(root.iterdir()), {}
        inbox = find(paths, RUBRIC, **options)
        assert inbox.given == len(files)
        named = [name for name, _ in inbox.strays]
        assert sum(handin.entries for handin in inbox.handins) + len(named) == len(files)
        whole = [name for name in files if files[name] is None or platforms.is_archive(name)]
        hidden = [name for name in whole if name in named]
        assert all(name.startswith(".") and files[name] is None for name in hidden)
        assert len(inbox.handins) >= len(whole) - len(hidden)
        names = [handin.name for handin in inbox.handins]
        assert len({name.casefold() for name in names}) == len(names)


PARTS = st.sampled_from(
    [
        *("HW3", "hw3", "vae.py", "VAE.py", "diffusion.py", TINY, "a", "b", "a.zip", "x.rar", ".git", "__MACOSX"),
        *("ada_1_1000_vae.py", "Ada_1_assignsubmission_file_", "submission_1", "hw3-a\u202e", "\ufeff", "\udce9"),
        *(". ", "é", "e\u0301", "grades.csv", "submission_metadata.yml"),
    ]
)
TREES = st.dictionaries(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join), st.sampled_from([None, V, WHOLE]), max_size=8
)


@FUZZ
@given(TREES, st.booleans())
def test_any_tree(tree, as_paths):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        for name, content in tree.items():
            try:
                put(root, {name: content})
            except OSError:  # a file is where a folder would be
                continue
        paths = sorted(root.iterdir()) if as_paths else [root]
        handins = found_or_refused(paths)
        out = Path(folder, "out")
        out.mkdir()
        names = [handin.name for handin in handins]
        assert names == sorted(set(names))
        for handin in handins:
            (handin.name + handin.student).encode()
            (out / handin.name).mkdir()
            check(handin.read(RUBRIC), folder)

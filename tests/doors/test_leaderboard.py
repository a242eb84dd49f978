"""The leaderboard: whatever lies in samples.npz, it is judged or flagged, and nothing that was handed in is run."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from handed_in import FUZZ, info, put, zipped
from hypothesis import given
from hypothesis import strategies as st

from classroom import graded
from grading.__main__ import main
from grading.hidden.doors.leaderboard import board as leaderboard
from grading.hidden.doors.leaderboard.arrays import MAX_IMAGES, Drawn, read_samples
from grading.hidden.doors.leaderboard.copies import Album, shifts
from grading.hidden.doors.leaderboard.judge import NOTHING, load_private, train_private
from grading.hidden.handout.release import release_list
from grading.hidden.intake.untrusted import Refused
from grading.hidden.reports.gradescope import read_result, write_result
from grading.rubric import MEASURES, RUBRIC, load_rubric
from harness import load, run_script
from HW3.data import load_dataset
from HW3.judge import Judge, accuracy, load_judge, save_judge, weights_path

TRAIN, TEST = (load_dataset("digits", train=train) for train in (True, False))
IMAGES, LABELS = TEST.images[:, 0].numpy(), TEST.labels.numpy()


def npz(**arrays) -> bytes:
    """A file as sample.py writes it."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def npy(array, **kinds) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **kinds)
    return file.getvalue()


def drawn(first: int, end: int, light: float = 1.0) -> dict[str, np.ndarray]:
    """Digits that no model was trained on; with another light they are no copies of each other."""
    return {"images": (light * IMAGES[first:end]).astype(np.uint8), "labels": LABELS[first:end]}


def noisy(images: np.ndarray, grey: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-grey, grey + 1, images.shape)
    return (images.astype(int) + noise).clip(0, 255).astype(np.uint8)


ONE_OF_EACH = [int(np.flatnonzero(LABELS[240:300] == label)[0]) for label in range(10)]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A private judge of digits."""
    path = tmp_path_factory.mktemp("judge") / "private.pt"
    judge = train_private("digits", TRAIN, seed=1)
    save_judge(judge, accuracy(judge, TEST), path)
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """`python -m grading samples ARGS...`, in this process. Returns (exit code, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr("sys.argv", ["grading", "samples", *map(str, args)])
        code = main()
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def rows(out) -> dict[str, dict[str, str]]:
    with (out / "samples.csv").open(newline="", encoding="utf-8") as file:
        return {row["submission"]: row for row in csv.DictReader(file)}


def flags(row) -> list[str]:
    return row["flags"].split(";") if row["flags"] else []


# -- what is hostile -----------------------------------------------------------------------------------------


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def header(text: str, data: bytes = b"") -> bytes:
    """An .npy with that header."""
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + data


def smaller_than_it_is() -> bytes:
    """A zip that says that 64 MB are 1,152 bytes."""
    content = zipped({"images.npy": bytes(64 << 20), "labels.npy": npy(LABELS)})
    return content.replace(struct.pack("<L", 64 << 20), struct.pack("<L", 1152))


GOOD = drawn(0, 100)
ONE, PLAIN = npy(GOOD["images"]), npy(GOOD["labels"])
SHAPE = "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }"
HOSTILE = {
    # name: (content, what the student is told)
    "nothing": (b"", "is empty"),
    "no-zip": (b"images", "is not a zip"),
    "gz": (gzip.compress(b"x"), "is a .gz and not a zip"),
    "cut": (npz(**GOOD)[:-200], "is damaged"),
    "bomb": (zipped({"images.npy": bytes(64 << 20), "labels.npy": PLAIN}), "has `images` of 67,108,864 bytes: at most"),
    "lying-bomb": (smaller_than_it_is(), "has `images`, which is damaged"),
    "many": (zipped({f"{i}.npy": b"" for i in range(60_000)}), "lists too many files (at most 20)"),
    "nested": (zipped({"samples.npz": npz(**GOOD)}), "has no array `images`"),
    "paths": (zipped({"../images.npy": ONE, "/labels.npy": PLAIN}), "has no array `images`"),
    "twice": (
        zipped({"images.npy": ONE, "imagez.npy": ONE, "labels.npy": PLAIN}).replace(b"imagez", b"images"),
        "more than one array `images`",
    ),
    "link": (
        zipped([(info("images.npy", 0o120777), "/etc/passwd"), ("labels.npy", PLAIN)]),
        "`images`, which is a link",
    ),
    "bz2": (zipped({"images.npy": ONE}, compress_type=zipfile.ZIP_BZIP2), "compressed in an unusual way"),
    "pickle": (zipped({"images.npy": b"\x80\x04cos\nsystem\n.", "labels.npy": PLAIN}), "is no array of numpy"),
    "deep": (zipped({"images.npy": header(SHAPE % ("(" * 900)), "labels.npy": PLAIN}), "is no array of numpy"),
    "minus": (zipped({"images.npy": header(SHAPE % ("-" * 900 + "1")), "labels.npy": PLAIN}), "is no array of numpy"),
    "long-header": (zipped({"images.npy": header(SHAPE % (" " * 2000 + "(1,)"))}), "is no array of numpy"),
    "huge": (zipped({"images.npy": header(SHAPE % f"({10**300}, 32, 32)")}), "its size is not what its header says"),
    "huge-but-empty": (zipped({"images.npy": header(SHAPE % f"(0, {10**30}, 32)")}), "its size is not what its header"),
    "axes": (zipped({"images.npy": header(SHAPE % f"({'1, ' * 90})", b"0")}), "its size is not what its header says"),
    "negative": (zipped({"images.npy": header(SHAPE % "(-1, 32, -32)", bytes(1024))}), "its size is not what"),
    "fields": (zipped({"images.npy": npy(np.zeros(3, [("<b>", "u1")]))}), "of type [('<b>', 'u1')]: write plain"),
    "text": (zipped({"images.npy": npy(np.array(["=1+1"]))}), "write plain numbers"),
    "no-labels": (npz(images=GOOD["images"]), "has no array `labels`"),
    "empty": (npz(images=IMAGES[:0], labels=LABELS[:0]), "is empty: draw some"),
    "too-many": (npz(images=np.ones((MAX_IMAGES + 1, 32, 32), np.uint8), labels=LABELS), "at most 10,000 images"),
    "small": (npz(images=IMAGES[:, :28, :28], labels=LABELS), "of shape 359 x 28 x 28, and N x 32 x 32"),
    "colour": (npz(images=np.stack([IMAGES] * 3, -1), labels=LABELS), "of shape 359 x 32 x 32 x 3"),
    "scalar": (npz(images=np.uint8(3), labels=LABELS), "has images of shape"),
    "nan": (npz(images=np.full((9, 32, 32), np.nan), labels=LABELS[:9]), "of type float64 that are not all finite"),
    "floats": (npz(images=IMAGES[:9] / 255, labels=LABELS[:9]), "pixels of type float64: write uint8"),
    "bits": (npz(images=IMAGES // 128, labels=LABELS), "no pixel above 1"),
    "few-labels": (npz(images=IMAGES, labels=LABELS[:5]), "of shape 5: write 359"),
    "float-labels": (npz(images=IMAGES, labels=LABELS / 1), "labels of type float64"),
    "labels-to-10": (npz(images=IMAGES, labels=LABELS + 1), "labels from 1 to 10"),
    "labels-from-minus": (npz(images=IMAGES, labels=LABELS - 1), "labels from -1 to 8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_file_of_sample_py_is_refused(name):
    content, says = HOSTILE[name]
    with pytest.raises(Refused) as caught:
        read_samples(content)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_nothing_is_unpickled(tmp_path):
    objects = np.array([Marker(tmp_path / "marker")], dtype=object)
    with pytest.raises(Refused, match="of type object: write plain numbers"):
        read_samples(zipped({"images.npy": npy(objects, allow_pickle=True), "labels.npy": PLAIN}))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        GOOD,
        GOOD | {"images": GOOD["images"][..., None]},
        GOOD | {"images": np.asfortranarray(GOOD["images"])},
        GOOD | {"labels": GOOD["labels"].astype(np.int32)},
        GOOD | {"labels": GOOD["labels"].astype(">i8"), "others": np.zeros(3)},
    ],
)
def test_what_sample_py_writes_is_read(arrays):
    found = read_samples(npz(**arrays))
    assert np.array_equal(found.images, GOOD["images"])
    assert np.array_equal(found.labels, GOOD["labels"])
    assert (found.images.dtype, found.labels.dtype) == (np.uint8, np.int64)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_damage_is_refused_or_harmless(changes, packed):
    content = bytearray(npz(**drawn(0, 3)) if packed else zipped({"images.npy": ONE[:2000], "labels.npy": PLAIN[:200]}))
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(Refused):
        assert isinstance(read_samples(bytes(content)), Drawn)


@FUZZ
@given(st.text("(){}[]'\",: 0123456789-u|<fOVdescrshapefortran_orderTrueFalse#\\\n", max_size=120))
def test_headers_are_refused_or_harmless(text):
    for line in (text, SHAPE % text, SHAPE.replace("|u1", text) % "(64,)"):
        with pytest.raises(Refused):
            read_samples(zipped({"images.npy": header(line, bytes(64)), "labels.npy": PLAIN}))


# -- a class -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(tmp_path_factory, weights):
    """(out, inbox, stdout, exit code) of one run over a class with everything in it."""
    root = tmp_path_factory.mktemp("class")
    inbox, out = root / "inbox", root / "out"
    code = f"open({str(root / 'marker')!r}, 'w')".encode()
    traps = ("HW3/__init__.py", "HW3/vae.py", "HW3/judge.py", "numpy.py", "torch.py", "conftest.py", "sitecustomize.py")
    files = {
        **{f"good/{name}": code for name in (*traps, "train_tiny_sd.py")},
        "good/samples.npz": npz(**drawn(0, 120)),
        "hw3-zipped.zip": zipped({"hw3/samples.npz": npz(**drawn(120, 240)), "hw3/train_tiny_sd.py": code}),
        "first/samples.npz": npz(**drawn(240, 359)),
        "second/samples.npz": npz(images=noisy(IMAGES[358:239:-1], 4), labels=LABELS[358:239:-1]),
        "memorised/samples.npz": npz(
            images=noisy(TRAIN.images[:100, 0].numpy(), 4),
            labels=TRAIN.labels[:100].numpy(),
        ),
        "one-picture/samples.npz": npz(
            **{name: array[ONE_OF_EACH].repeat(8, 0) for name, array in drawn(240, 300, 0.8).items()}
        ),
        "one-class/samples.npz": npz(**drawn(0, 100, 0.7) | {"labels": np.full(100, 3)}),
        "few/samples.npz": npz(**drawn(0, 30, 0.55)),
        "absent/train_tiny_sd.py": code,
        "=1+1/samples.npz": npz(**drawn(0, 100, 0.85) | {"labels": (LABELS[:100] + 1) % 10}),
        "folder/samples.npz/images.npy": b"",
        '"><script>alert(1)<': None,
        **{f"hostile-{name}/samples.npz": content for name, (content, _) in HOSTILE.items()},
    }
    put(inbox, files)
    (inbox / "linked").mkdir()
    (inbox / "linked" / "samples.npz").symlink_to(inbox / "good" / "samples.npz")
    (inbox / "zip-link.zip").write_bytes(zipped([(info("samples.npz", 0o120777), "/etc/passwd")]))
    (inbox / "loose.txt").touch()
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["grading", "samples", str(inbox), "--out", str(out), "--judge", str(weights)])
        patch.setattr("sys.stdout", shown)
        exit_code = main()
    return out, inbox, shown.getvalue(), exit_code


def test_everybody_has_a_row(judged):
    out, inbox, shown, code = judged
    found = rows(out)
    assert list(found["good"]) == ["submission", "student", *MEASURES, "flags"]
    names = {path.name.removesuffix(".zip") for path in inbox.iterdir()} - {"loose.txt"}
    assert found.keys() == names
    assert found["hw3-zipped"]["student"] == "zipped"
    assert code == 1  # of loose.txt
    assert "loose.txt is neither a folder nor a zip" in shown
    assert f"{len(names)} judged" in shown


def test_good_pictures_are_ranked(judged):
    for name in ("good", "hw3-zipped"):
        row = rows(judged[0])[name]
        assert flags(row) == []
        assert float(row["label_accuracy"]) > 0.97
        assert float(row["precision"]) > 0.8
        assert float(row["recall"]) > 0.8
        assert float(row["frechet_distance"]) > 0
    wrong = rows(judged[0])["=1+1"]  # good pictures with the wrong labels
    assert float(wrong["label_accuracy"]) < 0.05
    page = (judged[0] / "leaderboard.html").read_text()
    places = [page.index(f"<bdi>{name}</bdi>") for name in ("good", "hw3-zipped", "=1+1")]
    assert max(places) == places[-1]


@pytest.mark.parametrize(
    ("name", "flagged"),
    [
        ("first", ["copied"]),
        ("second", ["copied"]),
        ("memorised", ["copied"]),
        ("one-picture", ["repeated"]),
        ("one-class", ["unbalanced"]),
        ("few", ["too-few"]),
        ("absent", ["missing"]),
        ("=1+1", []),
        *((name, ["unreadable"]) for name in ("folder", "linked", "zip-link")),
    ],
)
def test_flags(judged, name, flagged):
    assert flags(rows(judged[0])[name]) == flagged


def test_hostile_files_are_rows_with_a_flag(judged):
    out, *_ = judged
    found = rows(out)
    for name, (_, says) in HOSTILE.items():
        row = found[f"hostile-{name}"]
        assert flags(row) == ["unreadable"], name
        assert [row[measure] for measure in MEASURES] == [""] * len(MEASURES)
        if name != "nothing":  # of an empty file the intake speaks
            told = json.loads((out / f"hostile-{name}" / "results.json").read_text())["output"]
            assert says in told


def test_too_few_pictures_say_how_many(judged):
    row = rows(judged[0])["few"]
    assert row["label_accuracy"]
    assert row["frechet_distance"] == ""
    told = json.loads((judged[0] / "few" / "results.json").read_text())["output"]
    assert "30 pictures are too few for a covariance of 64 features: 65 are needed" in told


def test_no_code_of_a_student_is_run(judged):
    assert not (judged[1].parent / "marker").exists()


def test_the_page_has_everybodys_pictures_and_nothing_live(judged):
    page = (judged[0] / "leaderboard.html").read_text()
    with_pictures = sum(bool(row["label_accuracy"]) for row in rows(judged[0]).values())
    assert page.count('src="data:image/png;base64,') == with_pictures
    assert "default-src 'none'" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "pictures are nearly the same in first." in page


def test_students_are_not_told_each_others_names(judged):
    told = json.loads((judged[0] / "second" / "results.json").read_text())["output"]
    assert "nearly the same as those of another submission" in told
    assert "first" not in told


def test_gradescopes_leaderboard(judged):
    board = json.loads((judged[0] / "good" / "results.json").read_text())["leaderboard"]
    assert [entry["name"] for entry in board][:2] == ["Label accuracy", "Fréchet distance"]
    assert [entry.get("order") for entry in board] == [None, "asc", None, None, None, None]
    assert all(isinstance(entry["value"], float) for entry in board)
    for name in ("second", "absent", "hostile-nan"):
        assert json.loads((judged[0] / name / "results.json").read_text())["leaderboard"] == []


def test_names_are_those_of_grade(tmp_path, weights, run):
    """Canvas gives every loose file a name of its own, and a number where it came again."""
    files = {
        "lovelaceada_71_1001_train_tiny_sd.py": b"",
        "lovelaceada_71_1002_samples-1.npz": npz(**drawn(0, 70)),
        "babbagebob_72_1003_hw3.zip": zipped({"samples.npz": npz(**drawn(100, 170))}),
    }
    code, *_ = run(put(tmp_path / "canvas", files), "--out", tmp_path / "out", "--judge", weights)
    assert code == 0
    found = {name: (row["student"], row["flags"]) for name, row in rows(tmp_path / "out").items()}
    assert found == {"lovelaceada_71": ("71", ""), "babbagebob_72_1003_hw3": ("72", "")}


# -- beside the results of `grade` ------------------------------------------------------------------------------


def test_results_of_grade_keep_all_else(run, weights, tmp_path):
    put(tmp_path / "inbox", {"ada/samples.npz": npz(**drawn(0, 100)), "bob/samples.npz": npz(**drawn(100, 200))})
    out, rubric = tmp_path / "out", load_rubric()
    found = leaderboard.find_samples([tmp_path / "inbox"], rubric, out, platform=None, bulk=False).handins
    write_result(out, graded("ada", source=found[0].source), rubric)
    before = json.loads((out / "ada" / "results.json").read_text())
    code, _, err = run(tmp_path / "inbox", "--out", out, "--judge", weights)
    assert (code, err) == (0, "")
    after = json.loads((out / "ada" / "results.json").read_text())
    assert after.pop("leaderboard") != before.pop("leaderboard")
    assert after == before
    assert read_result(out / "ada" / "results.json") is not None

    write_result(out, graded("bob", source="another place"), rubric)
    held = (out / "bob" / "results.json").read_bytes()
    code, _, err = run(tmp_path / "inbox", "--out", out, "--judge", weights)
    assert code == 2
    assert "results of submissions that lay elsewhere: bob" in err
    assert (out / "bob" / "results.json").read_bytes() == held


def test_points_by_thresholds(run, weights, tmp_path, monkeypatch):
    text = RUBRIC.read_text(encoding="utf-8")
    table = "[samples]\nlabel_accuracy = [[0.5, 1], [0.9, 3]]\nfrechet_distance = [[1e6, 2], [0, 50]]\n\n[late]"
    (tmp_path / "rubric.toml").write_text(text.replace("[late]\n", f"{table}\n", 1).replace("[late]\n", "[late]\n"))
    rubric = load_rubric(tmp_path / "rubric.toml")
    assert rubric.samples.possible == 53
    monkeypatch.setattr(leaderboard, "load_rubric", lambda: rubric)
    files = {
        "good.npz": npz(**drawn(0, 100)),
        "wrong.npz": npz(**drawn(100, 200) | {"labels": (LABELS[100:200] + 1) % 10}),
        "broken.npz": b"",
        "odd.npz": npz(**drawn(200, 300) | {"labels": np.full(100, 3)}),
    }
    put(tmp_path / "files", files)
    code, *_ = run(*(tmp_path / "files" / name for name in files), "--out", tmp_path / "out", "--judge", weights)
    assert code == 0
    points = {name: row["points"] for name, row in rows(tmp_path / "out").items()}
    assert points == {"good": "5", "wrong": "2", "broken": "0", "odd": ""}
    assert load_rubric().samples is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("label_acuracy = [[1, 1]]", "there is no setting `label_acuracy`; is `label_accuracy` meant?"),
        ("recall = 3", "`recall` is 3, where a list of pairs [threshold, points] is asked for"),
        ("recall = []", "a list of pairs"),
        ("recall = [[0.5]]", "a list of pairs"),
        ("recall = [[0.5, -1]]", "a list of pairs"),
        ("recall = [[nan, 1]]", "a list of pairs"),
        ("recall = [['a', 1]]", "a list of pairs"),
    ],
)
def test_a_table_of_points_that_makes_no_sense(tmp_path, line, says):
    text = f"{RUBRIC.read_text(encoding='utf-8')}\n[samples]\n{line}\n"
    (tmp_path / "rubric.toml").write_text(text)
    with pytest.raises(Exception, match=r"rubric.toml, line ") as caught:
        load_rubric(tmp_path / "rubric.toml")
    assert says in str(caught.value)
    assert f"line {text.count(chr(10))}: " in str(caught.value)


# -- the judge -----------------------------------------------------------------------------------------------


def test_it_knows_the_digits_that_it_has_not_seen(weights):
    assert accuracy(load_private(weights), TEST) >= 0.98


def liked_by_the_public_judge(images, labels, most=1.0):
    """Images changed, by at most that much per pixel, until the judge that students have sees these labels."""
    judge, start, x = load_judge("digits"), images, images.clone()
    for _ in range(25):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(judge(x)[1], labels), x)
        x = (x.detach() - 0.05 * gradient.sign()).clamp(start - most, start + most).clamp(0, 1)
    assert (judge.judge(x)[1].argmax(dim=1) == labels).double().mean() > 0.8
    return x


@pytest.mark.parametrize("start", ["noise", "black", "other digits"])
def test_patterns_that_only_the_public_judge_likes_fall_back(weights, start):
    torch.manual_seed(0)
    images, labels = TEST.batch(slice(0, 100))
    if start == "other digits":
        x = liked_by_the_public_judge(images, (labels + 1) % 10, most=0.2)
    else:
        x = liked_by_the_public_judge(torch.rand_like(images) * (start == "noise"), (labels + 1) % 10)
    seen = load_private(weights).judge(x)[1].argmax(dim=1)
    assert (seen == (labels + 1) % 10).double().mean() < 0.2
    if start != "other digits":
        assert (seen == NOTHING).double().mean() > 0.8


def test_weights_of_another_judge(run, weights, tmp_path):
    put(tmp_path, {"ada/samples.npz": npz(**GOOD), "none.pt": b""})
    changed = load(weights) | {"version": "leaderboard-0"}
    torch.save(changed, tmp_path / "old.pt")
    torch.save(load(weights) | {"weights": {}}, tmp_path / "other.pt")
    for judge, says in {
        tmp_path / "nowhere.pt": "there is no judge at ",
        tmp_path / "none.pt": "is not a judge, or is damaged",
        tmp_path / "old.pt": "is a judge of version leaderboard-0, this code has leaderboard-1",
        tmp_path / "other.pt": "do not fit the judge",
        weights_path("digits"): "is a judge of version 1, this code has leaderboard-1",
    }.items():
        code, _, err = run(tmp_path / "ada", "--out", tmp_path / "out", "--judge", judge)
        assert code == 2
        assert says in err
        assert "make one with python -m grading samples --train-judge" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "name the submissions and --out DIR"),
        (("ada",), "name the submissions and --out DIR"),
        (("ada", "--train-judge", "x.pt"), "--train-judge takes no PATH"),
        (("nowhere", "--out", "out"), "nowhere does not exist"),
        (("nowhere.npz", "--out", "out"), "nowhere.npz does not exist"),
        (("ada/samples.npz", "bob/samples.npz", "--out", "out"), "another submission is called samples"),
        (("ada", "--out", "out", "--dataset", "mnist"), "judges digits, not mnist"),
        (("--train-judge", "there.pt", "--dataset", "digits"), "there.pt is there: numbers of another judge"),
        (("--train-judge", "x.pt", "--dataset", "mnist", "--data-dir", "here"), "truncated"),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, weights, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    raw = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    put(tmp_path, {"ada/samples.npz": b"", "bob/samples.npz": b"", "there.pt": b""})
    put(tmp_path, {f"here/MNIST/raw/{name}": b"" for name in raw})
    code, _, err = run(*args, *(() if "--train-judge" in args else ("--judge", weights)))
    assert code == (1 if says == "truncated" else 2)
    assert says in err
    assert err.count("\n") == 1


def test_a_judge_is_trained_by_one_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr("grading.hidden.doors.leaderboard.judge.EPOCHS", {"digits": 1})
    seen = set()
    for name in ("a.pt", "b.pt"):
        code, out, err = run("--train-judge", tmp_path / "new" / name, "--dataset", "digits")
        assert (code, err) == (0, "")
        assert "% of the 359 test images right; keep it from students" in out
        seen.add(load_private(tmp_path / "new" / name).fingerprint)
    assert len(seen) == 2  # the seed is nobody's


def test_nothing_of_it_leaves():
    assert not [place for place in release_list(load_rubric()) if "leaderboard" in place]
    assert type(load_judge("digits")) is Judge


# -- copies and classes ---------------------------------------------------------------------------------------


def test_real_digits_are_no_copies():
    distance = torch.stack([Album(TRAIN.images[:, 0]).nearest(moved)[0] for moved in shifts(TEST.images[:, 0])])
    assert distance.min() > 1.5 * leaderboard.SAME
    within, _ = Album(TEST.images[:, 0]).nearest(TEST.images[:, 0], but_itself=True)
    assert within.min() > 1.5 * leaderboard.SAME


def test_the_nearest_is_found():
    images = TRAIN.images[:300, 0]
    found, index = Album(images).nearest(images[::7])
    assert torch.equal(index, torch.arange(300)[::7])
    assert found.max() == 0
    some, _ = Album(images).nearest(images, 0.07, but_itself=True)
    found, index = Album(images).nearest(images, but_itself=True)
    assert torch.equal(some[found < 0.07], found[found < 0.07])
    assert 0 < (found < 0.07).sum() < some.isfinite().sum() < 300
    assert (index != torch.arange(300)).all()
    full = torch.cdist(images.flatten(1).double(), images.flatten(1).double()).fill_diagonal_(torch.inf)
    exact = full.min(dim=1).values / 255 / 32
    assert (found >= exact - 1e-6).all()
    assert (found - exact < 0.01).double().mean() > 0.95  # of what is far, nearly the nearest


def test_a_copy_that_was_moved_is_one():
    images = F.pad(TRAIN.images[:50, 0, 1:-1, 1:-1], [1] * 4)
    album = Album(images)
    for moved in shifts(images):
        nine = torch.stack([album.nearest(again)[0] for again in shifts(moved)])
        assert nine.amin(dim=0).max() == 0
    assert album.nearest(moved)[0].min() > leaderboard.SAME


def test_scarce_classes():
    even = torch.arange(1000) % 10
    assert leaderboard.scarce_classes(even) == []
    torch.manual_seed(0)
    assert leaderboard.scarce_classes(torch.randint(10, (1000,))) == []
    assert leaderboard.scarce_classes(torch.arange(65) % 10) == []
    assert leaderboard.scarce_classes(torch.cat([even, even[even != 4], even[even != 4]])) == ["4"]
    assert len(leaderboard.scarce_classes(torch.full((65,), 2))) == 9


def test_which_pictures_are_judged_is_the_judges_secret(weights):
    board = leaderboard.Board(load_private(weights), TRAIN)
    chosen = board.chosen(5000)
    assert len(chosen.unique()) == leaderboard.JUDGED
    assert torch.equal(chosen, board.chosen(5000))
    board.judge_.fingerprint = "00000001"
    assert not torch.equal(chosen, board.chosen(5000))


def test_samples_of_sample_py(run, weights, tiny, tmp_path):
    """From a student's checkpoint to a row."""
    path = tmp_path / "ada.npz"
    done = run_script("sample.py", tiny.checkpoint("tiny_sd"), "--num", 70, "--out", path)
    assert done.returncode == 0, done.stderr
    code, _, err = run(path, "--out", tmp_path / "out", "--judge", weights)
    assert (code, err) == (0, "")
    row = rows(tmp_path / "out")["ada"]
    assert not {"unreadable", "too-few", "unbalanced"} & set(flags(row))
    assert all(row[measure] for measure in MEASURES)

"""The judge: which weights it takes, that they are good, and that no training meets it."""

import ast

import pytest
import torch

from harness import ROOT, OnAppleGPU, load
from HW3.data import load_dataset
from HW3.judge import NUM_FEATURES, VERSION, Judge, accuracy, load_judge, main, save_judge, shifted, train, weights_path
from HW3.plumbing.errors import UsageError

SHIPPED = ("mnist", "digits")


@pytest.mark.parametrize("dataset", SHIPPED)
def test_weights_are_small_plain_and_good(dataset):
    path = weights_path(dataset)
    assert path.stat().st_size <= 500_000
    saved = load(path)  # weights_only
    assert (saved["version"], saved["dataset"]) == (VERSION, dataset)
    assert saved["test_accuracy"] >= 0.993
    judge = load_judge(dataset)
    assert judge.test_accuracy == saved["test_accuracy"]
    assert not judge.training
    assert not any(weight.requires_grad for weight in judge.parameters())


def test_it_knows_the_digits_that_it_has_not_seen():
    assert accuracy(load_judge("digits"), load_dataset("digits", train=False)) >= 0.99


def test_features_and_probabilities():
    images = torch.rand(700, 1, 32, 32)  # more than one chunk
    judge = load_judge("digits")
    features, probabilities = judge.judge(images)
    assert features.shape == (700, NUM_FEATURES)
    assert features.dtype == probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(700).double())
    alone, _ = judge.judge(images[650:651])
    torch.testing.assert_close(features[650:651], alone, rtol=0, atol=1e-4)
    assert (features.std(dim=0) > 0).all()
    on_apple, _ = judge.judge(images[:3].as_subclass(OnAppleGPU))
    torch.testing.assert_close(on_apple, features[:3], rtol=0, atol=1e-4)


def test_no_training_meets_it():
    scripts = [*ROOT.glob("train_*.py"), *(ROOT / "HW3").rglob("*.py")]
    may = {ROOT / "HW3" / "metrics.py"}  # for a type
    for script in scripts:
        names = set()
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        if script.parent == ROOT:
            assert not {"HW3.judge", "HW3.metrics"} & names, script
        elif script not in may:
            assert "HW3.judge" not in names, script


# -- which weights are taken ---------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Untrained weights as they would be saved, and a way to change them."""
    path = tmp_path / "judge.pt"

    def write(**changes):
        save_judge(Judge("digits"), 0.5, path)
        state = load(path) | changes
        torch.save({key: value for key, value in state.items() if value is not None}, path)
        return path

    return write


def test_weights_come_back(saved, tmp_path):
    path = saved()
    first, second = load_judge("digits", path=path), load_judge("digits", path=saved())
    assert first.test_accuracy == 0.5
    assert first.fingerprint != second.fingerprint  # other weights are another judge
    assert first.name == f"digits, version {VERSION}, {first.fingerprint}"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": VERSION + 1}, f"version {VERSION + 1}, this code has {VERSION}"),
        ({"dataset": "mnist"}, "judges mnist, and digits is needed"),
        ({"weights": {"x": torch.zeros(1)}}, "do not fit"),
        ({"weights": None}, "not a judge"),
    ],
)
def test_other_weights_are_refused(saved, changes, says):
    with pytest.raises(UsageError, match=says) as caught:
        load_judge("digits", path=saved(**changes))
    assert "python -m HW3.judge --dataset digits" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_judge_is_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a judge"):
        load_judge("digits", path=tmp_path / "x.pt")
    with pytest.raises(
        UsageError, match=r"no judge for digits at .*: make it with python -m HW3.judge --dataset digits"
    ):
        load_judge("digits", path=tmp_path / "nowhere.pt")


# -- how they are made -----------------------------------------------------------------------------------


def test_training_is_repeatable_and_learns(capsys):
    data = load_dataset("digits", limit=300)
    first, second = (train("digits", data, epochs=3, batch_size=30) for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert accuracy(first, data) > 0.7


def test_shifts_move_whole_images():
    torch.manual_seed(0)
    images = torch.zeros(200, 1, 9, 9)
    images[:, 0, 4, 4] = torch.arange(1, 201)
    moved = shifted(images)
    assert moved.shape == images.shape
    assert torch.equal(moved.sum(dim=(1, 2, 3)), images.sum(dim=(1, 2, 3)))
    places = moved.flatten(1).argmax(dim=1)
    assert len(places.unique()) == 25
    assert {(int(place) // 9, int(place) % 9) for place in places} == {(y, x) for y in range(2, 7) for x in range(2, 7)}


def test_weights_are_not_replaced_by_accident(monkeypatch):
    monkeypatch.setattr("sys.argv", ["judge.py", "--dataset", "digits"])
    monkeypatch.setattr("HW3.judge.train", lambda *args: pytest.fail("it trains"))
    with pytest.raises(UsageError, match=r"judge_digits.pt is there: .*--out"):
        main()

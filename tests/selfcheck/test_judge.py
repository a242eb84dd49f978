"""What a student is told: wrong kinds of answers, wrong values, known mistakes; and how points add up."""

import functools
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from grading import driver
from grading.cases import PUBLIC, all_cases, load_cases, save_cases
from grading.errors import GradingError
from grading.feedback import message, mistakes
from grading.hidden.reference.bank import BANK, PLACES, chaffs_of
from grading.judge import GRADED_OUTPUTS, Verdict, _noise_statistics, judge, run_and_judge
from grading.rubric import load_rubric, score
from grading.submission import Submission, SubmissionError
from HW3.diffusion import GaussianDiffusion

RUBRIC = load_rubric()


def case_of(id, group=None):
    return next(c for c in load_cases(PUBLIC / f"{id}.npz", hidden=False) if group in (None, c.group))


def judged(submission, case):
    return run_and_judge(partial(driver.run, submission), case)


def verdict_on(id, function, group=None):
    return judged(Submission(replaced={PLACES[id]: function}), case_of(id, group))


# -- answers of the wrong kind: a sentence each ---------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda self, x_t, t, eps: None, "returned None (is there a `return`?)"),
        (lambda self, x_t, t, eps: [x_t], "returned a list, where a tensor is asked for"),
        (lambda self, x_t, t, eps: x_t.numpy(), "returned a numpy array"),
        (lambda self, x_t, t, eps: x_t.double(), "`x0` is float64 where the input is float32"),
        (lambda self, x_t, t, eps: x_t.bfloat16(), "`x0` came back as torch.bfloat16"),
        (lambda self, x_t, t, eps: x_t.to_sparse(), "`x0` came back as torch.float32, torch.sparse_coo"),
        (lambda self, x_t, t, eps: x_t.long(), "`x0` is int64 where the input is float32"),
        (lambda self, x_t, t, eps: x_t * float("nan"), "are NaN or infinite"),
        (lambda self, x_t, t, eps: x_t[:, :1], "`x0` has shape (5, 1), where (5, 4) is asked for"),
        (lambda self, x_t, t, eps: x_t.mul_(0), "the argument `x_t` was changed"),
        (lambda self, x_t, t: x_t, "cannot be called as the assignment does, with 3 arguments"),
        (lambda self, x_t, t, eps, more: x_t, "cannot be called as the assignment does, with 3 arguments"),
    ],
)
def test_an_answer_of_the_wrong_kind_is_named(function, says):
    function.__name__ = "predict_x0"
    verdict = verdict_on("predict-x0", function)
    assert not verdict.passed
    assert says in verdict.problem


def test_a_pair_must_be_a_pair():
    for function, says in (
        (lambda self, x0, x_t, t: x0, "where a pair of tensors is asked for"),
        (lambda self, x0, x_t, t: (x0, x0, x0), "returned 3 values, where (mean, variance) is asked for"),
        (lambda self, x0, x_t, t: (x0, 0.5), "returned a float, where a tensor is asked for"),
        (lambda self, x0, x_t, t: (x0, x0[:2]), "does not broadcast to the mean's"),
    ):
        assert says in verdict_on("posterior", function).problem


def test_a_renamed_function_is_named():
    submission = Submission()
    with pytest.raises(SubmissionError, match="defines no `kl_divergnce`: was it renamed"):
        submission.get("HW3/vae.py", "kl_divergnce")
    with pytest.raises(SubmissionError, match="has no method `ddim`"):
        submission.method(GaussianDiffusion, "ddim")


def test_exceptions_of_the_submission_pass_through():
    def broken(self, x_t, t, eps):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        verdict_on("predict-x0", broken)


# -- messages ---------------------------------------------------------------------------------------------


def test_a_wrong_value_says_what_was_asked_what_came_and_what_to_revisit():
    function, case = RUBRIC.functions["ddim-step"], case_of("ddim-step")
    verdict = verdict_on("ddim-step", lambda self, x_t, t, t_prev, eps, eta=0.0, noise=None: x_t * 1.2345)
    text = message(function, case, verdict, mistakes(), "idea")
    assert "ddim-step (GaussianDiffusion.ddim_step in HW3/diffusion.py)" in text
    assert "`x_prev` is off by up to" in text
    assert "t = [" in text
    assert "eta = " in text
    assert f"revisit: {function.idea}" in text


@pytest.mark.parametrize("id", ["posterior", "kl", "guidance", "reparameterize", "q-sample"])
def test_a_known_mistake_is_named_in_words(id):
    named = 0
    for chaff in chaffs_of(id):
        for case in load_cases(PUBLIC / f"{id}.npz", hidden=False):
            try:
                verdict = judged(chaff.submission(), case)
            except Exception:
                continue
            if verdict.mistake == chaff.name:
                assert f"mistake: {chaff.text}" in message(RUBRIC.functions[id], case, verdict, mistakes(), "term")
                named += 1
                break
    assert named >= 5


def test_nothing_is_recognised_in_an_arbitrary_answer():
    rng = np.random.default_rng(0)

    def arbitrary(self, x_t, t, eps):
        return torch.from_numpy(rng.standard_normal(x_t.shape)).to(x_t.dtype)

    assert verdict_on("predict-x0", arbitrary).mistake is None


def test_a_wrong_helper_costs_its_own_id_only():
    def doubled(self, x_t, t, eps):
        return 2 * GaussianDiffusion.predict_x0(self, x_t, t, eps)

    submission = Submission(replaced={PLACES["predict-x0"]: doubled})
    for id in ("ddpm-step", "ddim-step"):
        for case in all_cases(id):
            assert judged(submission, case).passed, case.name
    assert not any(judged(submission, case).passed for case in all_cases("predict-x0"))


def test_sound_helpers_do_not_excuse_a_wrong_step():
    def noisy(self, x_t, t, eps, noise):
        mean, variance = self.q_posterior(self.predict_x0(x_t, t, eps), x_t, t)
        return mean + variance * noise

    submission = Submission(replaced={PLACES["ddpm-step"]: noisy})
    assert not any(judged(submission, case).passed for case in all_cases("ddpm-step"))


# -- points -------------------------------------------------------------------------------------------------


def test_points_are_shares_of_group_weights():
    function = RUBRIC.functions["kl"]  # moderate 6, extreme 4, of 10 points
    assert score(function, [("moderate", True), ("moderate", False), ("extreme", True)]) == 3 + 4
    assert score(function, [("moderate", False)]) == 0
    assert score(function, [("moderate", True)]) == 10
    assert score(function, []) == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "kl"', 'id = "q-sample"', "twice"),
        ('file = "HW3/vae.py"', 'file = "HW3/data.py"', "not in `submit`"),
        ("weights = { moderate = 6, extreme = 4 }", "weights = { moderate = 1, extreme = 0 }", "positive weight"),
        ('public = ["moderate", "extreme"]', 'public = ["easy"]', "`weights` gives it no weight"),
    ],
)
def test_a_rubric_that_contradicts_itself_is_refused(tmp_path, old, new, says):
    from grading.submission import ROOT

    text = (ROOT / "grading" / "rubric.toml").read_text()
    assert old in text
    (tmp_path / "rubric.toml").write_text(text.replace(old, new))
    with pytest.raises(GradingError, match=says):
        load_rubric(tmp_path / "rubric.toml")


def test_cases_survive_the_file(tmp_path):
    cases = load_cases(PUBLIC / "ddim-step.npz", hidden=False)
    save_cases(tmp_path / "x.npz", cases)
    assert (tmp_path / "x.npz").read_bytes() == (PUBLIC / "ddim-step.npz").read_bytes()
    assert cases[0].standins
    assert cases[0].mistakes
    assert Verdict(True).problem == ""


# -- results that no driver would make ------------------------------------------------------------------------

HOSTILE = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
HUGE = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 3e38, -3e38, 1.7e308, -1.7e308])


@st.composite
def hostile_results(draw, honest: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An honest result with some arrays missing, renamed, or replaced by others."""
    result = {}
    for name, array in honest.items():
        what = draw(st.sampled_from(["keep", "keep", "drop", "rename", "replace", "scale"]))
        if what == "rename":
            result[draw(st.sampled_from(["x_t", "z", "out", "after/nothing", "", "eps", "seen_t"]))] = array
        elif what == "replace":
            shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
            dtype = np.dtype(draw(st.sampled_from(["f2", "f4", "f8", "i8", "i1", "u1", "bool"])))
            with np.errstate(all="ignore"):
                result[name] = np.full(shape, draw(HUGE)).astype(dtype)
        elif what == "scale":
            with np.errstate(all="ignore"):
                result[name] = (array * draw(HUGE)).astype(array.dtype)
        elif what == "keep":
            result[name] = array
    return result


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: f"{case.id}-{'hidden-' * case.hidden}{case.name}")
def test_any_arrays_get_a_verdict(case):
    honest = driver.run(Submission(), case.call, case.params, case.inputs)

    @HOSTILE
    @given(hostile_results(honest))
    def fuzz(result):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            verdict = judge(case, result)
        if all(result.get(name) is array for name, array in honest.items()) and len(result) == len(honest):
            assert verdict.passed
        if honest.keys() & (GRADED_OUTPUTS | {"samples"}) - result.keys():
            assert not verdict.passed

    fuzz()


# -- noise that a function draws itself -------------------------------------------------------------------


def said_of(noise: np.ndarray) -> str:
    """The first problem with noise (calls, rows, ...); "" for none."""
    problems = _noise_statistics(noise)[1]
    return problems[0].text if problems else ""


@pytest.mark.parametrize("shape", [(4, 100, 16), (4, 16, 3, 8, 8), (4, 40, 24), (4, 512, 8), (2, 200, 7), (4, 60, 80)])
def test_standard_noise_is_right_whatever_its_seed(shape):
    for seed in range(30):
        assert said_of(np.random.default_rng(seed).standard_normal(shape)) == ""


def wrong_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    z = rng.standard_normal(shape)
    calls, rows = shape[:2]
    half = rng.standard_normal((calls, rows // 2, *shape[2:]))
    late = z.copy()
    late[-1] = 0
    one_silent = z.copy()
    one_silent[:, :, -1] = 0
    strong = z * np.sqrt(np.where(np.arange(rows) % 2, 1.3, 0.7)).reshape(1, -1, *[1] * (z.ndim - 2))
    pairs = z.copy()
    pairs[-1] = z[0]
    return {
        "uniform": (rng.random(shape) - 0.5) * np.sqrt(12),
        "three values": rng.choice([-np.sqrt(3), 0, np.sqrt(3)], shape, p=[1 / 6, 2 / 3, 1 / 6]),
        "Laplace": rng.laplace(size=shape) / np.sqrt(2),
        "rounded": np.round(z),
        "pairs of rows": np.concatenate([half, -half], axis=1),
        "pairs of calls": np.concatenate([z[: calls // 2], -z[: calls // 2]]),
        "one call repeated": pairs,
        "one call negated": np.concatenate([z[:-1], -z[:1]]),
        "same in every call": np.broadcast_to(z[:1], shape),
        "a shared part of the rows": np.sqrt(0.7) * z + np.sqrt(0.3) * rng.standard_normal((calls, 1, *shape[2:])),
        "a shared part of the calls": np.sqrt(0.7) * z + np.sqrt(0.3) * z[:1] * np.ones((calls, *[1] * (z.ndim - 1))),
        "none in the last call": late,
        "none in one place": one_silent,
        "stronger in some rows": strong,
        "a little off": z + 0.2,
        "a little small": 0.9 * z,
    }


@pytest.mark.parametrize("shape", [(4, 100, 16), (4, 16, 3, 8, 8), (4, 512, 8)])
def test_other_noise_is_not(shape):
    wrong = wrong_noise(np.random.default_rng(0), shape)
    assert [name for name, noise in wrong.items() if said_of(noise) == ""] == []


def test_noise_that_is_no_number_is_not_right():
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in (np.nan, 1e200, 0.0):
            assert said_of(np.full((4, 20, 5), value)) != ""


# -- what an oversight costs ------------------------------------------------------------------------------


def points_with(id: str, change) -> float:
    """Hidden points of the tree's own function with its answer changed: change(answer, arguments)."""
    file, name = PLACES[id]
    owner, _, method = name.partition(".")
    found = Submission().get(file, owner)
    original = getattr(found, method) if method else found

    def function(*args, **kwargs):
        answer = original(*args, **kwargs)
        return (
            tuple(change(part, args, kwargs) for part in answer) if id == "posterior" else change(answer, args, kwargs)
        )

    submission = Submission(replaced={PLACES[id]: functools.wraps(original)(function)})
    cases = [case for case in all_cases(id) if case.hidden]
    return score(RUBRIC.functions[id], [(case.group, judged(submission, case).passed) for case in cases])


@pytest.mark.parametrize("id", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_another_dtype_costs_more_than_a_tenth(id, dtype):
    possible = RUBRIC.functions[id].points
    assert points_with(id, lambda answer, args, kwargs: answer) == possible
    assert points_with(id, lambda answer, args, kwargs: answer.to(dtype)) < 0.9 * possible - 1e-6


@pytest.mark.parametrize("name", ["no_own_noise", "no_noise_of_its_own", "returns_the_mean"])
def test_noise_that_is_never_drawn_costs_more_than_a_tenth(name):
    chaff = next(entry for entry in BANK if entry.name == name)
    cases = [case for case in all_cases(chaff.id) if case.hidden]
    passed = [(case.group, judged(chaff.submission(), case).passed) for case in cases]
    assert score(RUBRIC.functions[chaff.id], passed) < 0.9 * RUBRIC.functions[chaff.id].points - 1e-6

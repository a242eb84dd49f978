"""What a student is told: wrong kinds of answers, wrong values, known mistakes; and how points add up."""

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
from grading.hidden.reference.bank import PLACES, chaffs_of
from grading.judge import GRADED_OUTPUTS, Verdict, judge, run_and_judge
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

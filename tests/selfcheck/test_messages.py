"""What students read in their own terminal: one message for one cause, short, with their own line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from classroom import write
from grading.crashes import usual
from grading.hidden.handout.release import build
from grading.rubric import load_rubric
from harness import ROOT, child_env

VAE, DIFFUSION, TINY_SD = load_rubric().submit


def method(cls: str, name: str, body: str) -> bytes:
    """Text that puts another method into a class."""
    return f"\n\ndef {name}{body}\n\n\n{cls}.{name} = {name}\n".encode()


# One mistake in each function, most of them in what surrounds the formula.
WRONG = {
    VAE: method(
        "ConvVAE",
        "reparameterize",
        "(self, mu, logvar):\n"
        "    eps = torch.randn_like(mu)\n"
        "    eps[-1] = 0\n"
        "    return mu + (0.5 * logvar).exp() * eps",
    )
    + b"\nkl_div = kl_divergence\ndel kl_divergence\n",
    DIFFUSION: b"\n\nimport math\n"
    + method(
        "GaussianDiffusion",
        "q_sample",
        "(self, x0, t, noise=None):\n    return math.sqrt(self.alpha_bars[t]) * x0",
    )
    + method(
        "GaussianDiffusion",
        "predict_x0",
        "(self, x_t, t, eps):\n"
        "    ab = self.at(self.alpha_bars, t, x_t).double()\n"
        "    return (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()",
    )
    + method(  # two mistakes
        "GaussianDiffusion",
        "q_posterior",
        "(self, x0, x_t, t):\n"
        "    tables = (self.alphas, self.betas, self.alpha_bars, self.alpha_bars_prev)\n"
        "    alpha, beta, bar, before = (self.at(table, t, x0) for table in tables)\n"
        "    mean = bar.sqrt() * beta / (1 - bar) * x0 + alpha.sqrt() * (1 - before) / (1 - bar) * x_t\n"
        "    return mean, beta",
    )
    + method(
        "GaussianDiffusion",
        "ddpm_step",
        "(self, x_t, t, eps, noise):\n    return x_t + (noise if t > 0 else 0)",
    )
    + method(
        "GaussianDiffusion",
        "ddim_step",
        "(self, x_t, t, t_prev, eps, eta=0.0, noise=None):\n    return self.at(self.alpha_bars, t_prev, x_t) * x_t",
    ),
    TINY_SD: method(
        "EpsMLPCond",
        "forward",
        "(self, x, t, cond):\n"
        "    with torch.no_grad():\n"
        "        time = self.embed_time(t)\n"
        "    return self.denoise(x, time + self.cond_proj(cond))",
    )
    + b"\n\ndef guided_eps(eps_cond, eps_uncond, scale):\n    return eps_uncond, eps_cond\n",
}


def self_check(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "grading/", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=root, env=child_env(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    files = {file: content + WRONG.get(file, b"") for file, content in build(ROOT)[1].items()}
    return write(tmp_path_factory.mktemp("messages") / "hw3", files)


@pytest.fixture(scope="module")
def messages(student) -> dict[str, list[str]]:
    """id -> what was said of it."""
    done = self_check(student)
    assert done.returncode == 1
    assert done.stdout.count("\n") < 150, done.stdout
    failures = done.stdout.partition("= FAILURES =")[2].partition("= points =")[0]
    found: dict[str, list[str]] = {id: [] for id in load_rubric().functions}
    for name, text in re.findall(r"^_+ test_function\[(\w+)-.*\] _+\n((?:(?!^_).*\n)*)", failures, re.MULTILINE):
        found[name.replace("_", "-")].append(text)
    return found


def test_one_cause_is_one_message(messages):
    counts = {id: len(texts) for id, texts in messages.items()}
    # A table has no row for the last step, and a variance shows on the usual schedule what the mean hides.
    assert counts == {**dict.fromkeys(counts, 1), "ddim-step": 2, "posterior": counts["posterior"]}, messages
    assert counts["posterior"] <= 2


@pytest.mark.parametrize(
    ("id", "parts"),
    [
        ("reparameterize", ["there is no noise in some rows"]),
        ("kl", ["HW3/vae.py defines no `kl_divergence`"]),
        ("q-sample", ["raises ValueError", ": return math.sqrt(self.alpha_bars[t]) * x0\n", "stay with tensors"]),
        ("predict-x0", ["keep the dtype"]),
        (
            "posterior",
            ["x0 is weighted with ᾱ of the wrong step", "the variance is that of a forward step"],
        ),
        ("ddpm-step", ["raises RuntimeError", ": return x_t + (noise if t > 0 else 0)\n", "an answer of its own"]),
        (
            "ddim-step",
            ["raises IndexError", ": return self.at(self.alpha_bars, t_prev, x_t) *", "none to look up"],
        ),
        ("conditioning", ["it follows the text", "nothing in `time_mlp` changed, so no gradient reaches it"]),
        ("guidance", ["returned a tuple, where a tensor is asked for"]),
    ],
)
def test_says_what_is_wrong(messages, id, parts):
    text = "".join(messages[id])
    assert [part for part in parts if part not in text] == [], text


@pytest.mark.parametrize("id", ["kl", "q-sample", "predict-x0", "guidance"])
def test_no_formula_is_blamed_for_something_else(messages, id):
    text = "".join(messages[id])
    assert load_rubric().functions[id].idea not in text
    assert "mistake:" not in text


def test_a_long_traceback_is_there_for_who_asks(student):
    done = self_check(student, "-k", "ddpm_step-hostile", "--tb=long")
    assert "grading/driver.py" in done.stdout
    assert "Boolean value of Tensor" in done.stdout


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (DIFFUSION, b"\ndef broken(:\n", "HW3/diffusion.py cannot be imported: SyntaxError in diffusion.py, line "),
        (VAE, b"\nimport einops\n", "HW3/vae.py cannot be imported: ModuleNotFoundError: No module named 'einops'"),
    ],
)
def test_a_file_that_cannot_be_imported_is_said_once(tmp_path, file, text, said):
    files = dict(build(ROOT)[1])
    files[file] += text
    done = self_check(write(tmp_path / "hw3", files), "-k", "posterior or q_sample or kl or reparameterize or ddpm")
    assert done.stdout.count(said) == 1, done.stdout
    assert "1 failed" in done.stdout


def test_what_is_not_written_is_listed_in_the_rubrics_order(tmp_path):
    root = write(tmp_path / "hw3", build(ROOT)[0])
    done = self_check(root)
    assert done.returncode == 1, "a scaffold is no success"
    assert "FAILED" not in done.stdout
    listed = done.stdout.partition("= to do =")[2].partition("= points =")[0]
    assert re.findall(r"TODO\(([\w-]+)\)", listed) == list(load_rubric().functions)
    assert re.search(r"^total +0 / 100", done.stdout, re.MULTILINE)


def test_usual_reasons_are_ideas():
    assert usual("Boolean value of Tensor with more than one value is ambiguous")
    assert usual("something that nobody has met") == ""


def test_a_print_storm_is_cut(tmp_path):
    files = dict(build(ROOT)[1])
    files[TINY_SD] += b"\n\ndef guided_eps(*args):\n    print('storm\\n' * 100_000)\n    return args[0]\n"
    done = self_check(write(tmp_path / "hw3", files), "-k", "guidance")
    assert len(done.stdout) < 20_000
    assert "(the last 2000 of 600001 characters)" in done.stdout
    assert "guidance (guided_eps in train_tiny_sd.py)" in done.stdout

"""app.py: what the page does, what it says of bad input, and the page itself in a browser."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import psutil
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from app import MOST, WORDS, Lab, labels_in
from browsing import CHROMIUM, needs_chromium
from grading.hidden.handout.release import build, write_tree
from harness import ROOT, assert_one_line, child_env, load, run_here
from HW3.data import load_dataset
from HW3.diffusion import GaussianDiffusion
from HW3.generate import draw, load_image_model
from HW3.plumbing.checkpoints import load_checkpoint
from HW3.plumbing.page import as_they_come, told
from HW3.viz import grid_png

CPU = torch.device("cpu")
DRAW = {"text": "three 7", "guidance": 2.0, "sampler": "ddim", "steps": 4, "eta": 0.0, "seed": 0}
SAID = "what is said"
SECONDS = 90  # until a page is there


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train=False)


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The tiny runs. Their VAEs are given contrast: after two epochs they decode all states to much the same grey."""
    root = shutil.copytree(tiny.root, tmp_path_factory.mktemp("runs") / "result")
    for kind in ("tiny_sd", "latent_diffusion"):
        path = root / tiny.checkpoint(kind).relative_to(tiny.root)
        state = load(path)
        state["extra"]["vae"]["weights"]["decoder.6.weight"] *= 30
        state["args"]["clip_tries"] = 4
        torch.save(state, path)
    return root


@pytest.fixture
def lab(runs, digits, monkeypatch) -> Lab:
    monkeypatch.setattr("app.FRAME_SECONDS", 0)
    return Lab(runs, "digits", digits, CPU)


def drawing(lab: Lab, kind: str = "tiny_sd", **changes):
    """All that the page is given while it draws; a dict of a line where something is wrong."""
    return list(told(lab.draw, SAID)(kind, *(DRAW | changes).values()))


def said(shown: list) -> str:
    """The line in which a mistake ended."""
    assert shown[-1].keys() == {SAID}
    return shown[-1][SAID]


def pixels(html: str) -> Image.Image:
    data = re.search(r'src="data:image/png;base64,([^"]+)"', html)[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


# -- drawing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("three 7", [3, 7]),
        ("42", [4, 2]),
        (" 4,2 ", [4, 2]),
        ("Zero,NINE 1", [0, 9, 1]),
        (" ".join(WORDS), [*range(10)]),
        ("7" * MOST, [7] * MOST),
    ],
)
def test_digits_and_their_names(text, labels):
    assert labels_in(text) == labels


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing to draw"),
        (" , ", "nothing to draw"),
        ("three cats", "`cats` is no digit: write 0 to 9, or zero to nine"),
        ("-1", "`-1` is no digit"),
        ("3.5", "`3.5` is no digit"),
        ("²", "`²` is no digit"),
        ("7" * (MOST + 1), f"write {MOST} or fewer"),
    ],
)
def test_what_is_no_digit(text, says, lab):
    assert says in said(drawing(lab, text=text))


@pytest.mark.parametrize("kind", ["tiny_sd", "latent_diffusion", "diffusion"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm"])
def test_drawing_shows_the_way_and_ends_with_what_sample_draws(kind, sampler, lab):
    shown = drawing(lab, kind, sampler=sampler)
    labels = torch.tensor([3, 7]) if kind == "tiny_sd" else None
    options = {"guidance_scale": 2.0, "clip_tries": 1} if kind == "tiny_sd" else {}  # CLIP chooses nothing on the page
    model = load_image_model(lab.path(kind), CPU, __import__, **options)
    num = 8 if labels is None else 2
    images, _ = draw(model, num, CPU, labels=labels, sampler=sampler, steps=4)
    *frames, end = shown
    assert len(frames) == (21 if sampler == "ddpm" else 5)  # the noise, and the state after every step
    assert pixels(frames[-1][0]).tobytes() == Image.open(io.BytesIO(grid_png(images, columns=num, scale=4))).tobytes()
    assert len({frame[0] for frame in frames}) == len(frames)
    assert pixels(frames[-1][1]).height == 2 * (34 * num + 2)  # a row per image
    assert end[2] == f"{'3 7' if labels is not None else '8 pictures'}: {20 if sampler == 'ddpm' else 4} steps of " + (
        sampler.upper()
    )


def test_every_setting_matters(lab):
    changes = (
        {},
        {"text": "3 8"},
        {"guidance": 9},
        {"sampler": "ddpm"},
        {"sampler": "dpm"},
        {"steps": 9},
        {"eta": 1},
        {"seed": 1},
    )
    ends = [drawing(lab, **change)[-2][0] for change in changes]
    assert len(set(ends)) == len(ends)
    assert drawing(lab)[-2][0] == ends[0]


def test_a_wrong_step_is_seen(lab, monkeypatch):
    right = drawing(lab)[-2][0]
    monkeypatch.setattr(GaussianDiffusion, "ddim_step", lambda self, x_t, t, t_prev, eps, eta, noise: x_t)
    assert drawing(lab)[-2][0] != right


def test_a_function_that_raises_is_shown_with_its_line(lab, monkeypatch, capsys):
    def ddim_step(self, x_t, *rest):
        return x_t.no_such_thing

    monkeypatch.setattr(GaussianDiffusion, "ddim_step", ddim_step)
    shown = drawing(lab)
    number = ddim_step.__code__.co_firstlineno + 1
    message = "AttributeError: 'Tensor' object has no attribute 'no_such_thing'"
    assert said(shown) == (f"tests/scripts/test_app.py, line {number}: `return x_t.no_such_thing` raises {message}")
    assert len(shown) == 2  # the noise had been seen
    assert "Traceback" in capsys.readouterr().err


def test_a_todo_is_named(lab, monkeypatch):
    def q_sample(*_):
        raise NotImplementedError("TODO(q-sample): mix data and noise")

    monkeypatch.setattr(GaussianDiffusion, "q_sample", q_sample)
    number = q_sample.__code__.co_firstlineno + 1
    shown = list(told(lab.forward, SAID)(3, 100, "linear", 0))
    assert said(shown) == f"q-sample is still to be written (test_app.py, line {number}): mix data and noise"


def test_checkpoints_that_do_not_serve(lab, tiny, digits, tmp_path):
    nothing = Lab(tmp_path, "digits", digits, CPU)
    assert said(drawing(nothing)) == f"no checkpoint at {nothing.path('tiny_sd')}: make it with train_tiny_sd.py"
    nothing.path("tiny_sd").parent.mkdir()
    nothing.path("tiny_sd").write_bytes(tiny.checkpoint("vae").read_bytes())
    assert "holds a vae model where a tiny_sd one is needed" in said(drawing(nothing))
    other = Lab(tiny.root, "mnist", digits, CPU)
    for shown in (drawing(other), list(told(other.decode, SAID)(3, *[0.0] * 6))):
        assert "was trained on digits: give --dataset digits, or run train_" in said(shown)
    assert "outside 1 to 20" in said(drawing(lab, steps=21))
    assert "there is no seed" in said(drawing(lab, seed=None))


def test_settings_are_those_of_training(lab, tiny, monkeypatch):
    def noisy(path, kind):
        checkpoint = load_checkpoint(path, kind)
        return checkpoint | {"args": checkpoint["args"] | {"ddim_eta": 0.25}}

    monkeypatch.setattr("app.load_checkpoint", noisy)
    text, guidance, steps, eta, line = lab.settings("tiny_sd")
    assert text["interactive"]
    assert guidance["value"] == load(tiny.checkpoint("tiny_sd"))["args"]["guidance_scale"]
    assert (steps["value"], steps["maximum"], eta["value"]) == (4, 20, 0.25)
    assert "after 2 epochs on digits" in line
    text, guidance, *_ = lab.settings("diffusion")
    assert (text["interactive"], guidance["interactive"]) == (False, False)


def test_who_no_longer_looks_ends_the_work():
    counted, ended = [], threading.Event()

    def work(show):
        try:
            for i in range(10**6):
                counted.append(i)
                show(torch.tensor(i))
        finally:
            ended.set()

    frames = as_they_come(work)
    assert next(frames) == 0
    frames.close()
    assert ended.wait(10)
    assert len(counted) < 10**6


# -- noise and latents ---------------------------------------------------------------------------------------


def test_the_forward_process(lab):
    clean, row, line = lab.forward(3, 0, "linear", 0)
    noisy, _, weights = lab.forward(3, 999, "linear", 0)
    assert pixels(clean).size == (5 * (3 * 34 + 2), 5 * 36)
    assert pixels(row).size == (2 * (10 * 34 + 2), 2 * 36)

    def x_t(html, column):
        left = 5 * (2 + 34 * column)
        return pixels(html).crop((left, 10, left + 160, 170)).resize((32, 32), 0)

    original, noise = (x_t(clean, column) for column in (0, 1))
    assert _apart(x_t(clean, 2), original) < 3 < _apart(x_t(noisy, 2), original)
    assert _apart(x_t(noisy, 2), noise) < 3 < _apart(x_t(clean, 2), noise)
    assert line == "t = 0: √ᾱ_t = 1.000 of the image, √(1 − ᾱ_t) = 0.010 of the noise"
    assert weights == "t = 999: √ᾱ_t = 0.006 of the image, √(1 − ᾱ_t) = 1.000 of the noise"
    changes = ((3, 500, "linear", 0), (4, 500, "linear", 0), (3, 500, "cosine", 0), (3, 500, "linear", 1))
    assert len({lab.forward(*chosen)[0] for chosen in changes}) == len(changes)


def _apart(a: Image.Image, b: Image.Image) -> float:
    """The mean difference of two pictures, of 255."""
    return sum(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) / (a.width * a.height)


def test_latents_move_along_their_longest_axes(lab):
    still, _ = lab.decode(3, *[0.0] * 6)
    moved = [lab.decode(3, *[3.0 if i == axis else 0.0 for i in range(6)])[0] for axis in range(6)]
    assert len({still, *moved}) == 7
    vae, space = lab.latents(lab.path("vae"), lab.path("vae").stat().st_mtime_ns)
    mu, logvar = vae.encode(lab.data.batch(slice(None))[0])
    along = space.normalize(mu) * space.std
    variance = along.var(dim=0, correction=0) + logvar.exp().mean(dim=0) @ space.basis**2  # of samples of q(z | x)
    assert (variance.diff() > -1e-4).all()
    assert variance.argmax() == vae.latent_dim - 1
    with torch.inference_mode():
        u = space.normalize(vae.encode(lab.image(3))[0])
        u[:, -1] += 3.0  # the longest is the first slider's
        both = torch.cat([lab.image(3), vae.decode(space.denormalize(u))])
    assert pixels(moved[0]).tobytes() == Image.open(io.BytesIO(grid_png(both, columns=2, scale=5))).tobytes()


# -- the command ---------------------------------------------------------------------------------------------


def test_no_checkpoint_at_all(tmp_path):
    result = run_here("app.py", "--result", tmp_path / "none")
    assert_one_line(result, 2, f"no checkpoint in {tmp_path / 'none'}", "train_vae.py --quick", "--dataset digits")


def test_a_damaged_checkpoint_alone(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "convae_latest.pt").write_text("no weights")
    assert_one_line(run_here("app.py", "--result", tmp_path), 2, "convae_latest.pt", "is damaged")


def test_a_port_that_is_taken(tiny):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        result = run_here("app.py", "--result", tiny.root, "--port", port)
    assert_one_line(result, 2, f"port {port} is taken: give another one with --port")


@pytest.mark.parametrize(
    ("flags", "says"),
    [(["--port", "0"], "1 or more"), (["--port", "70000"], "65535"), (["--handout", "."], "no app.py in it")],
)
def test_flags_that_cannot_be(flags, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(run_here("app.py", *flags), 2, says)


# -- in a browser --------------------------------------------------------------------------------------------


@contextmanager
def served(*flags: object):
    """The address of `python app.py` with these flags. Whom it asks besides itself is a test's failure."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy:
        all_else = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        through = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), all_else)
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), *map(str, flags)]
        process = subprocess.Popen(
            command, env=child_env(**through), stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        patience = threading.Timer(SECONDS, process.kill)  # one that asks the proxy waits for ever
        patience.start()
        try:
            assert process.stdout.readline() == f"http://127.0.0.1:{port}  (Ctrl-C ends it)\n"
            patience.cancel()
            serving = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
            listens = [c.laddr for each in serving for c in each.net_connections() if c.status == psutil.CONN_LISTEN]
            assert listens == [("127.0.0.1", port)]
            yield f"http://127.0.0.1:{port}/"
        finally:
            patience.cancel()
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


@contextmanager
def opened(address: str):
    """The page at an address, in a browser. What it asks of others is a test's failure."""
    asked = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root cannot have one
        page = chromium.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        chromium.close()
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert len(asked) > 10


def shown(page, place: str, html_was: str = "") -> str:
    """What the picture at a place is, as soon as it is another one."""
    page.wait_for_function(
        "([place, was]) => { const img = document.querySelector(place + ' img'); return img && img.src !== was; }",
        arg=[f"#{place}", html_was],
        timeout=30_000,
    )
    return page.locator(f"#{place} img").get_attribute("src")


def line(page, place: str):
    return expect(page.locator(f"#{place} textarea"))


@needs_chromium
def test_the_page(tiny):
    with served("--result", tiny.root) as address, opened(address) as page:
        line(page, "drawn").to_have_value(re.compile("after 2 epochs on digits"), timeout=30_000)
        page.fill("#text textarea, #text input", "three 7")
        page.get_by_role("button", name="Draw").click()
        line(page, "drawn").to_have_value("3 7: 4 steps of DDIM", timeout=30_000)
        expect(page.locator("#images img")).to_have_attribute("alt", "3 7")
        two = pixels(page.locator("#images").inner_html())
        assert two.size == (4 * (2 * 34 + 2), 4 * 36)

        page.fill("#text textarea, #text input", "three cats")
        page.keyboard.press("Enter")
        line(page, "drawn").to_have_value(re.compile("`cats` is no digit"), timeout=30_000)

        page.get_by_role("tab", name="Add noise").click()
        before = shown(page, "mixed")
        page.locator("#t input[type=number]").fill("900")
        page.locator("#t input[type=number]").press("Enter")
        assert shown(page, "mixed", before) != before
        line(page, "weights").to_have_value(re.compile("^t = 900: "), timeout=30_000)

        page.get_by_role("tab", name="Bend latents").click()
        before = shown(page, "decoded")
        slider = page.get_by_role("slider", name="axis 1")
        slider.focus()
        slider.press("ArrowRight")
        assert shown(page, "decoded", before) != before
        line(page, "moved").to_have_value(re.compile(r"by \+0\.1, \+0\.0"), timeout=30_000)


@pytest.mark.slow
@needs_chromium
def test_the_functions_of_another_copy(tiny, tmp_path):
    copy = tmp_path / "hw3"
    write_tree(copy, build(ROOT)[0])
    path = copy / "HW3" / "diffusion.py"
    source = path.read_text()
    todo = re.search(r'raise NotImplementedError\(\s*"TODO\(q-sample\).*?"\s*\)', source, re.DOTALL)[0]
    path.write_text(source.replace(todo, "return x0 + self.no_such_table"))
    with served("--result", tiny.root, "--handout", copy) as address, opened(address) as page:
        expect(page.get_by_text(f"Functions of {copy.name}/")).to_be_visible(timeout=30_000)
        line(page, "drawn").to_have_value(re.compile("after 2 epochs"), timeout=30_000)
        page.get_by_role("button", name="Draw").click()
        line(page, "drawn").to_have_value(
            re.compile(r"conditioning is still to be written \(train_tiny_sd.py, line \d+\)"), timeout=30_000
        )
        page.get_by_role("tab", name="Add noise").click()
        line(page, "weights").to_have_value(
            re.compile(r"HW3/diffusion.py, line \d+: `return x0 \+ self.no_such_table` raises AttributeError: "),
            timeout=30_000,
        )

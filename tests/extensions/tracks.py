"""How the tests run a track's command: in this process, and what its errors must look like."""

from __future__ import annotations

import hashlib
from pathlib import Path
from subprocess import CompletedProcess

from PIL import Image
from torchvision.datasets import CelebA

from harness import run_here

# The smallest models that still do everything.
SMALL = {
    "data.source": "standin",
    **{"vae.epochs": 2, "vae.batch_size": 300, "vae.latent_dim": 12, "vae.width": 8},
    **{f"{stage}.{name}": value for stage in ("diffusion", "prior") for name, value in {
        "epochs": 2, "batch_size": 300, "time_dim": 8, "hidden_dim": 16, "timesteps": 20,
    }.items()},
    **{"classifier.epochs": 2, "classifier.batch_size": 300, "classifier.width": 8},
    **{"evaluate.rows": 20, "evaluate.noise_step": 10},
}  # fmt: skip


def changes(**more: object) -> list[str]:
    """SMALL as flags. Keyword arguments change it, with __ for the dot."""
    values = {**SMALL, **{name.replace("__", "."): value for name, value in more.items()}}
    return [flag for name, value in values.items() for flag in ("--set", f"{name}={value}")]


def structured(verb: str, *flags: object) -> CompletedProcess[str]:
    """`python -m extensions.structured VERB FLAGS...`"""
    return run_here("extensions.structured.__main__", verb, *flags)


def assert_refused(result: CompletedProcess[str], *parts: object) -> None:
    """Exit code 2 and one line on stderr, which says all of this."""
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (2, 1), result.stderr
    assert lines[0].startswith("extensions.structured: error: "), lines[0]
    missing = [str(part) for part in parts if str(part) not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"


# -- catdog and faces, which are one code ------------------------------------------------------------------------

# The smallest models that still do everything, the discriminator included: 333 pictures in two batches, and 70 to test,
# as the judge has 64 features.
SMALL_FAMILY = {
    "data.source": "standin", "data.standin_images": 350,
    **{f"{stage}.{name}": value for stage in ("judge", "features", "vae", "diffusion") for name, value in {
        "epochs": 2, "batch_size": 176, "lr": 0.01,
    }.items()},
    **{f"{stage}.precision": "fp32" for stage in ("judge", "features", "vae")},
    **{"judge.width": 8, "features.widths": [4, 8], "perceptual.features": "classifier"},
    **{"vae.latent_dim": 6, "vae.head_dim": 8, "vae.discriminator_widths": [4, 8]},
    **{"vae.kl_weight": [[0.2, 0.0], [0.6, 0.01]], "vae.perceptual_weight": [[0.0, 0.1]]},
    **{"vae.class_weight": [[0.0, 0.1]], "vae.centre_weight": [[0.0, 0.1]], "vae.adversarial_weight": [[0.0, 0.1]]},
    **{"diffusion.batch_size": 352, "diffusion.time_dim": 8, "diffusion.hidden_dim": 16, "diffusion.timesteps": 20},
    **{"sample.ddim_steps": 4, "evaluate.samples": 70},
}  # fmt: skip
WIDTHS = {"catdog": [4, 8, 8, 8], "faces": [4, 4, 8, 8, 8]}


def family_changes(name: str, **more: object) -> list[str]:
    """SMALL_FAMILY as flags for this track. Keyword arguments change it, with __ for the dot."""
    values = {**SMALL_FAMILY, "vae.widths": WIDTHS[name], **{k.replace("__", "."): v for k, v in more.items()}}
    return [flag for key, value in values.items() for flag in ("--set", f"{key}={value}")]


def family(name: str, verb: str, *flags: object) -> CompletedProcess[str]:
    """`python -m extensions.NAME VERB FLAGS...`"""
    return run_here(f"extensions.{name}.__main__", verb, *flags)


def assert_family_refused(name: str, result: CompletedProcess[str], *parts: object, code: int = 2) -> None:
    """This exit code and one line on stderr, which says all of this."""
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (code, 1), result.stderr
    assert lines[0].startswith(f"extensions.{name}: error: "), lines[0]
    missing = [str(part) for part in parts if str(part) not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"


def write_celeba(root: Path, monkeypatch, *, train: int, test: int) -> Path:
    """Files as torchvision keeps CelebA in root/celeba; it is told their checksums in place of the real ones.

    Every second face smiles and is light; the others are dark. Every third is Male, none is Bald.
    """
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{k + 1:06d}.jpg" for k in range(train + test)]
    attributes = ["Bald", "Male", "Smiling"]
    for k, name in enumerate(names):
        light = 180 if k % 2 else 40
        Image.new("RGB", (178, 218), (light, light + k % 7, light)).save(folder / "img_align_celeba" / name)
    rows = [f"{name} -1 {1 if k % 3 == 0 else -1:2} {1 if k % 2 else -1:2}" for k, name in enumerate(names)]
    texts = {
        "list_attr_celeba.txt": [str(len(names)), " ".join(attributes) + " ", *rows],
        "identity_CelebA.txt": [f"{name} {k + 1}" for k, name in enumerate(names)],
        "list_bbox_celeba.txt": [str(len(names)), "image_id x_1 y_1 width height"]
        + [f"{name}    95  71 226 313" for name in names],
        "list_landmarks_align_celeba.txt": [str(len(names)), " ".join("abcdefghij")]
        + [f"{name} " + " ".join(["69"] * 10) for name in names],
        "list_eval_partition.txt": [f"{name} {0 if k < train else 2}" for k, name in enumerate(names)],
    }
    sums = {}
    for name, lines in texts.items():
        content = ("\n".join(lines) + "\n").encode()
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    file_list = [(file, sums.get(name, md5), name) for file, md5, name in CelebA.file_list]
    monkeypatch.setattr(CelebA, "file_list", file_list)
    return folder

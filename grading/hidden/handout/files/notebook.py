# %% [markdown]
# # HW3: generative models, from the VAE to a tiny Stable Diffusion
#
# The whole assignment in one place: the checks, the five training scripts, drawing and measuring, and the zip to hand
# in. Each cell runs a command of [README.md](README.md) and shows what it writes while it runs; the commands do the
# same in a terminal.
#
# What you write is in `HW3/vae.py`, `HW3/diffusion.py` and `train_tiny_sd.py`, and not here: open these files beside
# this notebook (on Colab: the folder at the left). After a change run the cell again, nothing has to be restarted.
# "Run all" works at any time: a section whose functions are not written yet says so in one line.
#
# - **VS Code, JupyterLab, Codespaces**: open this file in the assignment's folder, and run the cells.
# - **Colab, Kaggle**: the same; the set-up fetches the rest of the assignment. What lies there is gone when the session
#   ends: hand in, or download your three files, before you leave.

# %% tags=["parameters"]
DATASET = "mnist"  # "digits" needs no download, and takes minutes for all five scripts
QUICK = True  # the presets for laptops; False: the full runs, which want a GPU
AGAIN = False  # True: train anew what is trained already, after a change of the code
NAME = ""  # yours, for the zip to hand in
MORE = ""  # flags for every training script, such as "--epochs 2"

REPOSITORY = ""  # where the assignment is cloned from, where this notebook is alone; "": from its zip
FOLDER = "hw3"  # into this folder; on Colab "/content/drive/MyDrive/hw3", with Drive mounted, outlives the session

# %% [markdown]
# ## Set up
#
# Finds the assignment, or fetches it, and installs what is missing of `requirements.txt`. A platform's own torch stays
# as it is.

# %%
import os
import shutil
import subprocess
import zipfile
from pathlib import Path


class NotFound(Exception):
    def _render_traceback_(self):  # one line instead of a traceback
        return [str(self)]


MARK = "HW3/plumbing/notebook.py"
if not Path(MARK).is_file() and not Path(FOLDER, MARK).is_file():
    uploaded = next(Path("/kaggle/input").rglob(MARK), None)  # Kaggle unpacks what it is given
    zips = [path for path in Path().glob("*.zip") if zipfile.is_zipfile(path)]
    zips = [path for path in zips if any(name.endswith(MARK) for name in zipfile.ZipFile(path).namelist())]
    if REPOSITORY:
        command = ["git", "clone", "--quiet", "--depth", "1", REPOSITORY, FOLDER]
        if subprocess.run(command, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}, check=False).returncode != 0:
            raise NotFound(f"{REPOSITORY} could not be cloned: correct REPOSITORY, or put the assignment's zip here")
    elif uploaded:
        shutil.copytree(uploaded.parents[2], FOLDER)  # what lies in /kaggle/input cannot be changed
    elif zips:
        with zipfile.ZipFile(zips[0]) as archive:
            archive.extractall("unpacked")
        shutil.move(next(Path("unpacked").rglob(MARK)).parents[2], FOLDER)
    else:
        raise NotFound(
            f"the assignment is not in {Path.cwd()}: open this notebook in its folder, "
            "upload the assignment's zip beside it, or write its address into REPOSITORY"
        )
if not Path(MARK).is_file():
    os.chdir(FOLDER)

from HW3.plumbing.notebook import Lab, set_up

set_up()
lab = Lab(dataset=DATASET, quick=QUICK, again=AGAIN, more=MORE)

# %% [markdown]
# ## Check
#
# `pytest grading/`: what is written, and what is right. `lab.check("kl")` checks one function; the ids are in the table
# of README.md.

# %%
lab.check()

# %% [markdown]
# ## 1. VAE
#
# [docs/notes/1-vae.md](docs/notes/1-vae.md). Images become 100 numbers and images again.

# %%
lab.train("vae", "--sample-every", 1)

# %% [markdown]
# ## 2. Diffusion on pixels
#
# [The forward process](docs/notes/2-forward-process.md), [DDPM](docs/notes/3-ddpm.md), [DDIM](docs/notes/4-ddim.md),
# [v and the cosine schedule](docs/notes/5-v-and-cosine.md). Pictures come after the last epoch: drawing them takes DDPM
# all of its steps.

# %%
lab.train("diffusion")

# %% [markdown]
# ## 3. Diffusion on latents
#
# [docs/notes/6-latents.md](docs/notes/6-latents.md). It needs the VAE of section 1.

# %%
lab.train("latent_diffusion", "--sample-every", 5)

# %% [markdown]
# ## 4. CLIP
#
# [docs/notes/7-clip.md](docs/notes/7-clip.md). There is nothing to write for it.

# %%
lab.train("clip", "--sample-every", 2)

# %% [markdown]
# ## 5. Tiny Stable Diffusion
#
# [docs/notes/8-guidance.md](docs/notes/8-guidance.md). It needs the VAE of section 1 and the CLIP of section 4.
# Pictures have one column per class.

# %%
lab.train("tiny_sd", "--sample-every", 5)

# %% [markdown]
# ## Draw and measure

# %%
lab.draw("result/tiny_sd/tiny_sd_latest.pt", "result/42.png", "--labels", "4,2", "--num", 16)

# %%
lab.draw("result/diffusion/diffusion_latest.pt", "result/denoising.gif", "--num", 16)

# %%
lab.run("evaluate.py", "result/*/*_latest.pt")

# %% [markdown]
# ## Hand in
#
# The zip with your three files, checked beside nothing else of yours. On Colab it is downloaded.

# %%
lab.pack(NAME)

"""The images of the track: HW3's data sets, or a folder of one's own with a folder for each class."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from extensions.blocks.images import Images, read_folder
from HW3.data import DATASETS, load_dataset
from HW3.plumbing.errors import UserError

SOURCES = (*DATASETS, "folder")
HELD_OUT = 0.2  # of a folder's images


def load(settings: SimpleNamespace, data_dir: Path, seed: int) -> Images:
    """The images that the section `data` asks for. Raises UserError where they are not there, or broken."""
    size = settings.image_size
    if settings.source == "folder":
        everything = read_folder(Path(settings.folder), size)
        if len(everything) < 10:
            raise UserError(f"{settings.folder} has {len(everything)} images, too few to hold some out: add more")
        train, test = everything.split(HELD_OUT, 0)  # whatever the seed: what is held out stays so
    else:
        train, test = (load_dataset(settings.source, data_dir, train=t, image_size=size) for t in (True, False))
    train, val = train.split(settings.validation, seed)
    return Images(train, val, test, settings.source)

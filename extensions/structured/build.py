"""Write the data set as a pair of files: the expressions parsed into one-hot productions, and their CSV.

examples:
  python -m extensions.structured build                        result/structured/expressions.{h5,csv}
  python -m extensions.structured train --set data.hdf5=$PWD/expressions.h5 --set data.csv=$PWD/expressions.csv

The HDF5 file has the key `data`, (N, 1, 72, 53) uint8, and the names of the productions as an attribute.
"""

from __future__ import annotations

from extensions.blocks.command import arguments, settings, track_parser
from extensions.structured.data import load, write_pair
from extensions.structured.trained import FOLDER


def main() -> None:
    args = track_parser(__doc__ or "", "structured").parse_args(arguments())
    config = settings(args, FOLDER)
    data, name = load(config.data.source, args.data_dir, config.data.csv, config.data.hdf5)
    files = args.out_dir / "expressions.h5", args.out_dir / "expressions.csv"
    write_pair(data, *files)
    print(f"{name}: {len(data)} rows, {data.productions} productions -> {files[0]}, {files[1]}")

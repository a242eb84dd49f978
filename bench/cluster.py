"""What a cluster costs beside one machine, and what that means for 1,000 and for 100,000 submissions.

examples:
  python bench/cluster.py                      two workers, 60 submissions, two rounds
  python bench/cluster.py --workers 8 --submissions 400

The same submissions (those of bench/grade.py) are graded by turns on this machine and on a dask cluster of as many
worker processes on the same machine, so the two differ by what the cluster adds. Of a cluster are measured: seconds
until its workers have their zygotes, seconds per submission once they have, and how many empty tasks per second one
scheduler hands out, which bounds how many workers it can keep busy. The second table is computed from these.

Needs `pip install -r requirements-cluster.txt`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.grade import Bank  # noqa: E402


def grade(inbox: Path, out: Path, *options: object) -> float:
    """Seconds of one run of the command."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "grading", "grade", inbox, "--out", out, *options]
    subprocess.run([*map(str, command)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="on either side (default: 2)")
    parser.add_argument("--submissions", type=int, default=60, help="in the larger of the two runs of a round")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    from distributed import LocalCluster

    few, many = args.submissions // 4, args.submissions
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, bank = Path(name), Bank()
        bank.write(folder / "few", 0, few)
        bank.write(folder / "many", 0, many)
        cluster = LocalCluster(
            n_workers=args.workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit=None
        )
        with cluster:
            address = cluster.scheduler_address
            there = ["--scheduler", address, "--workers", 2 * args.workers]
            here = ["--workers", args.workers]
            begin = grade(folder / "few", folder / "start", *there)  # the workers make their zygotes
            rounds = []
            for i in range(args.rounds):
                runs = [
                    grade(folder / which, folder / f"{which}-{place}-{i}", *options)
                    for place, options in (("here", here), ("there", there))
                    for which in ("few", "many")
                ]
                rounds.append(runs)
            with cluster.get_client() as client:
                tasks = 2000
                start = time.perf_counter()
                client.gather(client.map(abs, range(tasks), pure=False))
                per_task = (time.perf_counter() - start) / tasks
        # Two runs of unequal length: what is paid once cancels out.
        local = median((many_here - few_here) / (many - few) for few_here, many_here, _, _ in rounds)
        remote = median((many_there - few_there) / (many - few) for _, _, few_there, many_there in rounds)
        once = median(few_there - few * remote for _, _, few_there, _ in rounds)
        first = begin - few * remote
    print(f"| {args.workers} workers | s/submission | paid once, s |\n|---|---:|---:|")
    print(f"| one machine | {local:.3f} | {median(r[0] - few * local for r in rounds):.1f} |")
    print(f"| the cluster | {remote:.3f} | {once:.1f}, the first time {first:.1f} |")
    print(f"\nOne scheduler hands out {1 / per_task:,.0f} empty tasks per second.\n")
    per_worker = remote * args.workers
    print("| submissions | " + " | ".join(f"{n} workers" for n in (1, 2, 16, 128, 1024)) + " |\n|---|" + "---:|" * 5)
    for count in (1_000, 100_000):
        times = [first + count * max(per_worker / n, per_task) for n in (1, 2, 16, 128, 1024)]
        print(f"| {count:,} | " + " | ".join(f"{seconds / 60:,.1f} min" for seconds in times) + " |")


if __name__ == "__main__":
    main()

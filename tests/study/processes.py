"""Verbs run by two processes that work together, in one launch: starting them takes longer than what they do in a test."""

import json
import os
import subprocess
import sys

from tests.server import ROOT, free_port

VERBS = "import json, sys\nfrom interp.study import cli\nfor verb in json.loads(sys.argv[1]):\n    cli.main(verb)\n"


def by_two(folder, *verbs):
    """What two processes with one thread each print when they run these command lines one after the other. `folder`: for the script."""
    return launched(folder, VERBS, json.dumps([[*map(str, verb)] for verb in verbs]))


def launched(folder, text, *args):
    """What two processes with one thread each print when they run this script."""
    script = folder / "script.py"
    script.write_text(text)
    launch = ["-m", "torch.distributed.run", "--master-addr", "127.0.0.1", "--master-port", str(free_port()), "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), *args],
        # A script finds only what lies beside it. Without GPUs: there may be fewer of them than processes.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

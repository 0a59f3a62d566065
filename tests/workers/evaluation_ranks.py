"""One rank of the two-process test of `flmm eval`: RANK, WORLD_SIZE and the master's address are in
the environment.

python evaluation_ranks.py COMMANDS.json

Runs every command of the file, a list of arguments of `flmm`, one after the other; exits with the
first status not 0.
"""

import json
import sys
from pathlib import Path

import torch
from flmm.commands.main import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        if status := main(arguments):
            sys.exit(status)

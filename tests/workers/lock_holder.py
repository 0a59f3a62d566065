"""Exit with 0 where this process can take the lock of a run folder, with 1 where another holds it.

python lock_holder.py FOLDER
"""

import sys

from clim_train.run.lock import FolderInUseError, hold

if __name__ == "__main__":
    try:
        hold(sys.argv[1])
    except FolderInUseError:
        sys.exit(1)

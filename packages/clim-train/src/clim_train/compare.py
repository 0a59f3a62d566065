"""`python -m clim_train.compare` is `clim_train.experiments.comparison.run`."""

from clim_train.experiments.comparison.run import main

if __name__ == "__main__":
    main()

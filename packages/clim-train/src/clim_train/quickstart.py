"""`python -m clim_train.quickstart` is `clim_train.experiments.quickstart.run`."""

from clim_train.experiments.quickstart.run import main

if __name__ == "__main__":
    main()

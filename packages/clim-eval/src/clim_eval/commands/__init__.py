"""The command line `clim-eval`: one module for each command."""

"""The program `clim-models`: one module for each command."""

"""The command line `clim-data`: one module for each command."""

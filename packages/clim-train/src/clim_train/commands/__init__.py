"""The command line `clim-train`."""

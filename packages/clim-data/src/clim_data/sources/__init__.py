"""Where samples lie: shards and folders, on this machine or remote, read and written."""

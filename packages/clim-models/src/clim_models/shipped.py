"""Names of the model that ships with the project, and the tags of its weights."""

TINY = "clim-tiny"

# After image-level pretraining, and after CLIM as well.
SHIPPED = "emoji"
AFTER_CLIM = "emoji-clim"
SHIPPED_TAGS = (AFTER_CLIM, SHIPPED)

# In place of a tag: no weights at all.
NO_WEIGHTS = "none"

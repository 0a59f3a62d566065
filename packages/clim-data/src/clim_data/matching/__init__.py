"""Where a record of an annotation file meets a sample of a source."""

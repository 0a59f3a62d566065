"""Files that are made from images and official annotations: proposals, nouns, class splits."""

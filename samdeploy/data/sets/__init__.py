"""One file per data set, and what folders of images look like."""

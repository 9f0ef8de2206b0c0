"""Where published files are, on disk and on the net: the catalogue, the search for a folder, verified downloads."""

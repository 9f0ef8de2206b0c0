"""Grids, claims and curves as markdown, LaTeX, CSV, HTML and figures.

Knows how things look. Does not know how a value came about, and runs nothing.
"""

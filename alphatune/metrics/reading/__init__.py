"""Files that people score: hypotheses, references, subsets, labels; every mistake told with file and line."""

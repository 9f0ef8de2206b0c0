"""Weight matrices to codes and scales, and back: pure tensors in, pure tensors out.

Knows groupings, bits, solvers and their errors. Does not know layers, models, transformers or files.
"""

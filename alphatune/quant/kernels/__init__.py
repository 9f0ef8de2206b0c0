"""What solvers do number by number, as machine code for this CPU, compiled by LLVM on first use.

Knows columns, codebooks and memory addresses. The same bits come out as from torch, which does it where LLVM is not.
"""

"""Machine code made on the spot: whether it can be, writing it in LLVM's language, compiling it, keeping it on disk.

Knows CPUs, loops and vectors of numbers. Does not know bits, weights or what is computed.
"""

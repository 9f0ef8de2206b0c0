"""The packed product and the rebuilt weight as machine code for this CPU, compiled by LLVM on first use.

Knows bits, scales and memory addresses. Does not know torch modules, adapters or gradients.
"""

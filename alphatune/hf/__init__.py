"""The doors of transformers and peft: the quantiser, adapters of scales, LoRA beside codes, checkpoints on disk.

`import alphatune.hf` tells both libraries of the formats, which loading a packed checkpoint or an adapter needs. Does
not know tasks, training or records.
"""

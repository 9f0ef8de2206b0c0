"""What a run does with a model: load it, make batches, train what its method trains, decode, predict.

Knows models, tokenizers and losses. Does not know where results are kept, which stage comes when, or tables.
"""

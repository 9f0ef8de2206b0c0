"""The versions of the code behind each stage's result: a part of every artefact's key.

Raise a stage's number when its results change. A test compares the code that each stage depends on with
`tests/goldens/stages.json`, so that neither is forgotten: `make stages` brings that file up to date, and does so under
the same number only if the golden results of the stages are unchanged.
"""

# Of solvers whose codes or scales changed while those of others stayed; 1 where nothing is said. A part of the keys of
# what such a solver made. Records of earlier numbers keep their names and stand in tables until there are newer ones.
SOLVERS = {"alternating": 2, "weighted": 2, "hessian": 2, "gptq": 2}  # 2: sorted rows, sums in a stated order, factors

# The same of the scales that a run trains (method.trainable).
# 2: where the CPU, the layer and the number of threads allow it, the gradient of alpha_1 is looked up from the bits.
SCALES = {"first": 2}  # whether it was is not asked: a run has the same name on every machine

# Of training on text with trainer.precision=bfloat16. 2: it computes in bfloat16, where 1 stayed in float32.
BFLOAT16 = 2

VERSIONS = {"data": 1, "backbone": 2, "quantize": 1, "adapt": 1, "evaluate": 1, "decode": 1, "score": 1}

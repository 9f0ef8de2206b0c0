"""The versions of the code behind each stage's result: a part of every artefact's key.

Raise a stage's number when its results change. A test compares the code that each stage depends on with
`tests/goldens/stages.json`, so that neither is forgotten: `make stages` brings that file up to date, and does so under
the same number only if the golden results of the stages are unchanged.
"""

VERSIONS = {"data": 1, "backbone": 2, "quantize": 1, "adapt": 1, "evaluate": 1, "decode": 1, "score": 1}

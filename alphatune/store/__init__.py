"""What is kept on disk: whole files, sealed folders, artefacts under the hash of what they were made from.

Knows how to write so that a kill leaves the old or the new, how damage is seen, and who makes what at the moment. Does
not know what the files mean.
"""

from alphatune.store.artifacts import Artifact, ReadOnly, Store
from alphatune.store.claims import elsewhere as claimed_elsewhere
from alphatune.store.files import file_sha256, unwritable, write_atomically
from alphatune.store.names import path_part
from alphatune.store.seal import MANIFEST, digest, fault, seal

__all__ = [
    "MANIFEST", "Artifact", "ReadOnly", "Store", "claimed_elsewhere", "digest", "fault", "file_sha256", "path_part",
    "seal", "unwritable", "write_atomically",
]  # fmt: skip

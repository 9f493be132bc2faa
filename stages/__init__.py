"""One thin script per DVC stage: ``python -m stages.NAME`` reads params.yaml and files, calls melnet, writes files."""

import os

# TensorFlow reports how it starts on stderr; before anything imports it, keep that to errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

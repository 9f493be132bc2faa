"""One short script per DVC stage: ``python -m stages.NAME`` reads params.yaml and files, calls melnet, writes files.

TensorFlow's native code logs to stderr. At level 3 it is silent once it is loaded. While it is loaded, TensorFlow 2.21
ignores the level: on a machine without CUDA it prints twice a warning about ``absl::InitializeLog`` and the information
that no GPU will be used. These lines stay, because a filter would also hold back why loading failed. The flows of
``pipeline`` leave them out of their logs.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow

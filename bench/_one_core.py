"""Holds the process to one core; to be imported before TensorFlow, which counts the cores."""

import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

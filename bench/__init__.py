"""The benchmark: data, training, measurements and their report."""

from bench.machine import vector_instructions

vector_instructions.choose()  # before anything imports torch

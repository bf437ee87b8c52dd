"""Loaded models with seats: llama.cpp underneath, token ids in, steps and rewards' raw values out."""

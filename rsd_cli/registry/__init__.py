"""Models by name: what models.yaml declares, where the files are, how they get here, whether they are sound.

The only package that imports yaml or huggingface_hub. It never opens a model with llama.cpp.
"""

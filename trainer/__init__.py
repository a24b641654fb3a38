"""The thin trainer: packs and plan in, a Hugging Face model folder out. `python -m trainer --help`."""

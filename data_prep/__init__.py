"""Turn raw annotations into samples and their contextual regions."""

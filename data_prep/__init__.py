"""From raw annotations to samples and their contextual regions."""

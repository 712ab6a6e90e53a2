"""CROP: contextual regions, the PLC compressor between vision tower and projector, and the LLaVA that carries it."""
